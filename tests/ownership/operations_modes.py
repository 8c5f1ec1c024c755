"""Operations that change how nets run, reshape, share, save and load."""

from __future__ import annotations

from tests.ownership.operations import Operation
from tests.ownership.operations_runs import OnNet
from tests.ownership.world import drawn, drawn_code


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


class Compile(Slim):
    """Compile the net with torch.compile. This takes long, so the operation is chosen only in its own mode."""

    mode = "compile"

    def code(self, world, name, keep):
        return f"{name}.compile(keep={list(keep)})"


class OptimizeCompiled(Optimize):
    mode = "compile"

    def code(self, world, name, keep):
        return f"{name}.optimize(keep={list(keep)}, compile=True)"


class OptimizeOpenVino(Optimize):
    mode = "openvino"

    def code(self, world, name, keep):
        return f'{name}.optimize(keep={list(keep)}, engine="openvino")'


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


class Resize(OnNet):
    """Change the batch size; then write the inputs, and reshape or run the net."""

    @classmethod
    def draw(cls, rng, world):
        return (
            rng.choice(list(world.nets)),
            rng.choice([1, 2, 3, 4]),
            rng.choice(["reshape", "forward"]),
            rng.randrange(1000),
        )

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
        return not (world.real and any(id(blob) in world.held for blob in left))  # Caffe frees this memory

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
    weight = 1.5

    @classmethod
    def draw(cls, rng, world):
        return (rng.choice(list(world.nets)), rng.choice(list(world.files))) if world.files else None

    def suits(self, world, net, file):
        return file in world.files

    def change(self, world, net, file):
        net.load(world.files[file])

    def code(self, world, name, file):
        return f'{name}.{"copy_from" if "model" in file else "load_hdf5"}(f"{{folder}}/{file}")'
