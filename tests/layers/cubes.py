"""The source of a module of pycaffe layers with right or wrong gradients, for the tests of the gradient checks."""

CUBES = """
import caffe
class Cube(caffe.Layer):
    factor = 3.0
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data ** 3
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.factor * bottom[0].data ** 2 * top[0].diff
class Wrong(Cube):
    factor = 2.0
class Nearly(Cube):
    factor = 3.003
"""
