"""Operations that run nets and solvers."""

from __future__ import annotations

from tests.ownership.memory import Expected
from tests.ownership.operations import Operation
from tests.ownership.world import drawn, drawn_code


class OnNet(Operation):
    """An operation whose first argument is the name of a net."""

    @classmethod
    def draw(cls, rng, world):
        return (rng.choice(list(world.nets)),)

    def applies(self, world, name, *rest):
        return name in world.nets and self.suits(world, world.nets[name], *rest)

    def suits(self, world, net, *rest):
        return True

    def apply(self, world, name, *rest):
        return self.change(world, world.nets[name], *rest)


def outputs(net):
    return {name: Expected(net.blobs[name].data.array) for name in net.outputs}


class Forward(OnNet):
    weight = 3

    def suits(self, world, net):
        return net.can_run(0, len(net.steps) - 1)

    def change(self, world, net):
        world.run(net)
        return outputs(net)

    def code(self, world, name):
        return f"seen = copied({name}.forward())"


class Feed(OnNet):
    """Forward with the inputs as keyword arguments."""

    @classmethod
    def draw(cls, rng, world):
        return rng.choice(list(world.nets)), rng.randrange(1000)

    def suits(self, world, net, seed):
        return bool(net.inputs)

    def change(self, world, net, seed):
        for i, name in enumerate(net.inputs):
            half = net.blobs[name].data
            half.storage.put(drawn(net.blobs[name].kind, seed + i, half.shape))
            half.storage.writes += 1
        world.run(net)
        return outputs(net)

    def code(self, world, name, seed):
        net = world.nets[name]
        given = [drawn_code(net.blobs[each].kind, seed + i, net.blobs[each].shape) for i, each in enumerate(net.inputs)]
        words = ", ".join(f"{each}={value}" for each, value in zip(net.inputs, given))
        return f"seen = copied({name}.forward({words}))"


class KeepOutput(OnNet):
    """Run forward, and keep one of the returned arrays."""

    @classmethod
    def draw(cls, rng, world):
        name = rng.choice(list(world.nets))
        return name, f"out{rng.randrange(100)}", rng.choice(world.nets[name].outputs)

    def suits(self, world, net, name, output):
        return net.can_run(0, len(net.steps) - 1) and name not in world.views and not world.memory(net)

    def apply(self, world, net, name, output):
        world.run(world.nets[net])
        world.keep(name, (net, "blob", output, 0), "data", ...)

    def code(self, world, net, name, output):
        return f'{name} = {net}.forward()["{output}"]'


class PartForward(OnNet):
    weight = 3

    @classmethod
    def draw(cls, rng, world):
        name = rng.choice(list(world.nets))
        layers = [step.node.name for step in world.nets[name].steps]
        first, last = sorted((rng.randrange(len(layers)), rng.randrange(len(layers))))
        return name, layers[first], layers[last] if rng.random() < 0.5 else layers[-1]

    def suits(self, world, net, start, end):
        return net.can_run(net.index[start], net.index[end])

    def change(self, world, net, start, end):
        net.forward(net.index[start], net.index[end])
        return {name: Expected(net.blobs[name].data.array) for name in net.steps[net.index[end]].node.tops}

    def code(self, world, name, start, end):
        return f'seen = copied({name}.forward(start="{start}", end="{end}"))'


class Backward(OnNet):
    weight = 4

    def suits(self, world, net):
        return any(step.backward for step in net.steps) and net.can_run_back(len(net.steps) - 1, 0)

    def change(self, world, net):
        net.backward()

    def code(self, world, name):
        return f"{name}.backward()"


class FeedBack(OnNet):
    """Backward with the outputs' diffs as keyword arguments."""

    @classmethod
    def draw(cls, rng, world):
        return rng.choice(list(world.nets)), rng.randrange(1000)

    def suits(self, world, net, seed):
        if any(blob.fresh or not blob.shape for blob in net.ends()):
            return False
        known = {id(blob.diff.storage): True for blob in net.ends()}
        return any(step.backward for step in net.steps) and net.can_run_back(len(net.steps) - 1, 0, known)

    def change(self, world, net, seed):
        for i, blob in enumerate(net.ends()):
            blob.diff.storage.put(drawn("value", seed + i, blob.shape))
        net.backward()

    def code(self, world, name, seed):
        net = world.nets[name]
        given = [drawn_code("value", seed + i, blob.shape) for i, blob in enumerate(net.ends())]
        words = ", ".join(f"{each}={value}" for each, value in zip(net.outputs, given))
        return f"{name}.backward({words})"


class PartBackward(PartForward):
    weight = 1.5

    def suits(self, world, net, start, end):
        return net.can_run_back(net.index[end], net.index[start])

    def change(self, world, net, start, end):
        net.backward(net.index[end], net.index[start])

    def code(self, world, name, start, end):
        return f'{name}.backward(start="{end}", end="{start}")'


class ForwardBackward(OnNet):
    weight = 2
    own = True

    def suits(self, world, net):
        return any(step.backward for step in net.steps) and net.can_run(0, len(net.steps) - 1) and net.can_fuse_back()

    def change(self, world, net):
        return Expected(net.forward_backward(world.held))

    def code(self, world, name):
        return f"seen = {name}.forward_backward()"


class ClearDiffs(OnNet):
    weight = 0.7

    def change(self, world, net):
        net.clear()

    def code(self, world, name):
        return f"{name}.clear_param_diffs()"


class Step(Operation):
    weight = 4

    @classmethod
    def draw(cls, rng, world):
        return (rng.choice([1, 1, 2]),)

    def applies(self, world, count):
        net = world.nets["net"]
        return world.solver is not None and net.can_run(0, len(net.steps) - 1) and net.can_fuse_back()

    def apply(self, world, count):
        for _ in range(count):
            world.solver.step(world.held)

    def code(self, world, count):
        return f"solver.step({count})"


class SolverTest(Operation):
    weight = 1.5
    own = True

    @classmethod
    def draw(cls, rng, world):
        return ()

    def applies(self, world):
        return world.solver is not None and world.nets["other"].can_run(0, len(world.nets["other"].steps) - 1)

    def apply(self, world):
        net = world.nets["other"]
        net.share_with(world.nets["net"])
        row = net.row
        if net.debug:
            net.forward()
        else:
            net.run_whole({*(net.optimized or ()), *net.outputs}, world.held)
        net.row = row  # a test that the program calls does not change the position of the data
        return {name: Expected(each.value.reshape(-1)) for name, each in outputs(net).items()}

    def code(self, world):
        return "seen = solver.test(0)"


class Snapshot(Operation):
    weight = 0.6

    @classmethod
    def draw(cls, rng, world):
        return ()

    def applies(self, world):
        return world.solver is not None

    def apply(self, world):
        solver, net = world.solver, world.nets["net"]
        history = [each.copy() for each in solver.history]
        rows = {name: each.row for name, each in world.nets.items()}
        world.states[solver.iter] = net.weights(), history, rows

    def code(self, world):
        return "solver.snapshot()"


class Restore(Operation):
    weight = 0.8

    @classmethod
    def draw(cls, rng, world):
        return (rng.choice(list(world.states)),) if world.states else None

    def applies(self, world, iteration):
        return iteration in world.states

    def apply(self, world, iteration):
        weights, history, rows = world.states[iteration]
        world.nets["net"].load(weights)
        world.solver.history = [each.copy() for each in history]
        world.solver.iter = iteration
        if not world.real:
            for name, row in rows.items():
                world.nets[name].row = row

    def code(self, world, iteration):
        return f'solver.restore(f"{{folder}}/s_iter_{iteration}.solverstate")'
