"""Operations that run nets and solvers, switch how they run, change shapes, share, save and load."""

from __future__ import annotations

from tests.ownership.memory import Expected
from tests.ownership.operations import Operation
from tests.ownership.world import drawn, drawn_code


class OnNet(Operation):
    """One that takes a net's name first."""

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
    weight = 4

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
        words = ", ".join(f"{each}={value}" for each, value in zip(net.inputs, given))  # noqa: B905
        return f"seen = copied({name}.forward({words}))"


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
        return (
            any(step.backward for step in net.steps) and net.can_run(0, len(net.steps) - 1) and net.can_fuse_back()
        )

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
        if net.debug:
            net.forward()
        else:
            net.run_whole({*(net.optimized or ()), *net.outputs}, world.held)
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
        world.states[solver.iter] = net.weights(), history, net.row

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
        weights, history, row = world.states[iteration]
        world.nets["net"].load(weights)
        world.solver.history = [each.copy() for each in history]
        world.solver.iter = iteration
        if not world.real:
            world.nets["net"].row = row

    def code(self, world, iteration):
        return f'solver.restore(f"{{folder}}/s_iter_{iteration}.solverstate")'


class Optimize(OnNet):
    own = True

    @classmethod
    def draw(cls, rng, world):
        name = rng.choice(list(world.nets))
        blobs = list(world.nets[name].blobs)
        return name, tuple(rng.sample(blobs, rng.choice([0, 0, 1, 2]) % (len(blobs) + 1)))

    def suits(self, world, net, keep):
        return net.phase == "TEST"

    def change(self, world, net, keep):
        net.optimized = set(keep)

    def code(self, world, name, keep):
        return f"{name}.optimize(keep={list(keep)})"


class Slim(Optimize):
    def suits(self, world, net, keep):
        return net.phase == "TRAIN"

    def change(self, world, net, keep):
        net.slim = set(keep)

    def code(self, world, name, keep):
        return f"{name}.slim(keep={list(keep)})"


class Stepwise(OnNet):
    weight = 0.6
    own = True

    def change(self, world, net):
        net.forget_modes()

    def code(self, world, name):
        return f"{name}.stepwise()"


class KeepDiffs(OnNet):
    weight = 0.5
    own = True

    @classmethod
    def draw(cls, rng, world):
        return rng.choice(list(world.nets)), rng.random() < 0.6

    def change(self, world, net, value):
        net.keep_diffs = value

    def code(self, world, name, value):
        return f"{name}.keep_diffs = {value}"


class DebugInfo(KeepDiffs):
    weight = 0.3

    def change(self, world, net, value):
        net.debug = value

    def code(self, world, name, value):
        return f"{name}.debug_info = {value}"


class Reshape(OnNet):
    """Another batch size; then the inputs are written, and the net reshaped or run."""

    @classmethod
    def draw(cls, rng, world):
        return rng.choice(list(world.nets)), rng.choice([1, 2, 3, 4]), rng.choice(["reshape", "forward"]), rng.randrange(1000)

    def suits(self, world, net, batch, then, seed):
        if not net.inputs or len(net.inputs) != len(net.sources):
            return False
        if world.real and any(view.storage in storages(net) for view in world.views.values()):
            return False
        single = ["BatchNorm", *(["Scale"] if world.real else [])]  # the original's Scale does not add up for one row
        return batch > 1 or not any(step.node.type in single for step in net.steps)

    def change(self, world, net, batch, then, seed):
        net.reshape(batch, lambda blob: drawn(blob.kind, seed, blob.shape))
        for step in net.steps:
            for blob in step.tops:
                blob.data.storage.writes += step.node.type == "Input"
        if then == "forward":
            world.run(net)

    def code(self, world, name, batch, then, seed):
        lines = []
        for each in world.nets[name].inputs:
            blob = world.nets[name].blobs[each]
            shape = (batch, *blob.shape[1:])
            lines.append(f'{name}.blobs["{each}"].reshape({", ".join(map(str, shape))})')
            lines.append(f'{name}.blobs["{each}"].data[...] = {drawn_code(blob.kind, seed, shape)}')
        return "; ".join([*lines, f"{name}.{then}()"])


def storages(net):
    return [half.storage for blob in net.blobs.values() for half in (blob.data, blob.diff)]


class Share(Operation):
    weight = 0.8

    @classmethod
    def draw(cls, rng, world):
        return ()

    def applies(self, world):
        if "other" not in world.nets:
            return False
        theirs = [blob.data.storage for blob in world.nets["net"].learnable]
        left = [blob for blob in world.nets["other"].learnable if blob.data.storage not in theirs]
        return not (world.real and any(id(blob) in world.held for blob in left))  # Caffe frees the memory

    def apply(self, world):
        world.nets["other"].share_with(world.nets["net"])

    def code(self, world):
        return "other.share_with(net)"


class Save(OnNet):
    weight = 0.7

    @classmethod
    def draw(cls, rng, world):
        return rng.choice(list(world.nets)), rng.choice(["a.caffemodel", "b.h5"])

    def change(self, world, net, file):
        world.files[file] = net.weights()

    def code(self, world, name, file):
        return f'{name}.{"save" if "model" in file else "save_hdf5"}(f"{{folder}}/{file}")'


class Load(Save):
    weight = 1

    def suits(self, world, net, file):
        return file in world.files

    def change(self, world, net, file):
        net.load(world.files[file])

    def code(self, world, name, file):
        return f'{name}.{"copy_from" if "model" in file else "load_hdf5"}(f"{{folder}}/{file}")'
