"""The first lines of a sequence, and the whole sequence as a script."""

from __future__ import annotations

from tests.ownership.operations import place_code, set_arrays_code
from tests.ownership.world import drawn_code

HEAD = """import gc, math, tempfile
import numpy as np
import caffe

def values(seed, shape):
    k = np.arange(1, math.prod(shape) + 1)
    return np.sin((0.7 + 0.01 * seed) * k * k).astype(np.float32).reshape(shape)

def labels(seed, shape, classes):
    return np.floor((values(seed, shape) + 1) / 2.001 * classes).astype(np.float32)

def copied(arrays):
    return {name: array.copy() for name, array in arrays.items()}

folder = tempfile.mkdtemp()
"""


def setup_lines(world):
    """Return the lines that build the nets and set their initial weights and inputs."""
    start = world.start
    if start.solver is not None:
        lines = ["solver = caffe.SGDSolver(solver_file); net = solver.net; other = solver.test_nets[0]"]
    else:
        lines = [f"net = caffe.Net(net_file, caffe.{start.phase})"]
        lines += ["other = caffe.Net(net_file, caffe.TEST)"] if start.pair else []
    for name, net in world.nets.items():
        lines += _first_weights(world, name, net)
        for seed, blob, each in world.first_inputs(net):
            lines.append(f'{name}.blobs["{each}"].data[...] = {drawn_code(blob.kind, seed, blob.shape)}')
        if world.memory(net):
            lines += [set_arrays_code(world, name, start.seed), f"seen = copied({name}.forward())"]
        if world.settles(net):
            lines.append(f"seen = {name}.forward(), {name}.backward(), {name}.clear_param_diffs()")
    return lines


def _first_weights(world, name, net):
    if world.start.first == "write" or not net.params:
        return _writes(world, name, net, "", name)
    lines = [f"first = caffe.Net(net_file, caffe.{net.phase})"]
    for file in ("second.caffemodel", "first.caffemodel"):
        lines += [*_writes(world, name, net, file, "first"), f'first.save(f"{{folder}}/{file}")']
    return [*lines, "del first", f'{name}.copy_from(f"{{folder}}/first.caffemodel")']


def _writes(world, name, net, file, target):
    """Yield the lines that set the initial weights of the net `target`."""
    return [
        f"{place_code((target, *place[1:]))}.data[...] = {drawn_code(blob.kind, seed, blob.shape)}"
        for seed, blob, place in world.first_weights(name, net, file)
    ]


def solver_text(options, net, prefix):
    """Return the solver's prototxt; `net` is the line or block that names the net."""
    fields = "\n".join(f"{key}: {value}" for key, value in options.items())
    return (
        f'{net}\n{fields}\nlr_policy: "fixed"\nsnapshot_prefix: "{prefix}"\n'
        "test_iter: 1\ntest_interval: 1000000\ntest_initialization: false\n"
    )


def script(start, lines):
    """Return the sequence as plain pycaffe code."""
    files = f'net_file = f"{{folder}}/net.prototxt"\nopen(net_file, "w").write("""{start.graph.text()}""")\n'
    if start.solver is not None:
        text = solver_text(start.solver, 'net: "FOLDER/net.prototxt"', "FOLDER/s")
        files += 'solver_file = f"{folder}/solver.prototxt"\n'
        files += f'open(solver_file, "w").write("""{text}""".replace("FOLDER", folder))\n'
    return "\n".join([HEAD + files, *lines]) + "\n"
