"""Real Caffe, in its own Python 3.8."""

from __future__ import annotations

import glob

import numpy as np

import caffe

caffe.set_mode_cpu()


def train(folder):
    """A step of the solver."""
    solver = caffe.SGDSolver(folder + "/solver.prototxt")
    solver.net.copy_from(folder + "/net.caffemodel")
    names = ("data", "label")
    marks = [""] + ["_" + str(index) for index in range(1, len(glob.glob(folder + "/data*.npy")))]
    given = [[np.load(folder + "/" + name + mark + ".npy") for name in names] for mark in marks]

    def fill(arrays):
        for index, name in enumerate(names):
            solver.net.blobs[name].reshape(*arrays[index].shape)
            solver.net.blobs[name].data[...] = arrays[index]

    def steps():
        for arrays in given:
            fill(arrays)
            solver.step(1)

    fill(given[0])
    return steps if len(given) > 1 else lambda: solver.step(1)


def infer(folder):
    """The net's outputs."""
    net, data = _net(folder), np.load(folder + "/data.npy")

    def work():
        net.blobs["data"].data[...] = data
        return net.forward()

    return work


def layers(folder, way):
    """Forward or backward of a net with gradients down to its data, layer by layer."""
    name = "/forced.prototxt" if way == "backward" else "/net.prototxt"
    net = caffe.Net(folder + name, folder + "/net.caffemodel", caffe.TEST)
    net.blobs["data"].data[...] = np.load(folder + "/data.npy")
    net.forward()
    for output in net.outputs:
        net.blobs[output].diff[...] = 1
    return net.forward if way == "forward" else net.backward


def load(folder):
    """Builds the net with its weights, then returns its outputs."""
    nets = []
    return lambda: nets[0].forward() if nets else nets.append(_net(folder))


def _net(folder):
    return caffe.Net(folder + "/net.prototxt", folder + "/net.caffemodel", caffe.TEST)
