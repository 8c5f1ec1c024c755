"""Python layers that use pycaffe in the same way as py-faster-rcnn: a source of images, targets and regions."""

from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest

import caffe
from caffe.errors import LayerError
from caffe.proto import caffe_pb2

YAML = """
    import ast

    def load(text, Loader=None):
        return ast.literal_eval("{" + text + "}")
"""

LAYERS = """
    import caffe
    import numpy as np
    import yaml

    CFG = {"TRAIN": {"regions": 7}, "TEST": {"regions": 4}}

    class Quiet(caffe.Layer):
        def backward(self, top, propagate_down, bottom):
            pass

        def reshape(self, bottom, top):
            pass

    def fill(top, blob):
        top.reshape(*(blob.shape))
        top.data[...] = blob.astype(np.float32, copy=False)

    class Images(Quiet):
        def setup(self, bottom, top):
            self._classes = yaml.load(self.param_str_)["num_classes"]
            self._name_to_top_map = {"data": 0, "im_info": 1, "gt_boxes": 2}
            top[0].reshape(1, 3, max((600,)), 1000)
            top[1].reshape(1, 3)
            top[2].reshape(1, 4)

        def set_roidb(self, roidb):
            self._roidb, self._cur = roidb, 0

        def forward(self, bottom, top):
            width, boxes = self._roidb[self._cur]
            self._cur = (self._cur + 1) % len(self._roidb)
            rng = np.random.RandomState(width)
            blobs = {
                "data": rng.randn(1, 3, 64, width).astype(np.float32),
                "im_info": np.array([[64, width, 1.0]], dtype=np.float32),
                "gt_boxes": np.array(boxes, dtype=np.float32),
            }
            for blob_name, blob in blobs.items():
                fill(top[self._name_to_top_map[blob_name]], blob)

    class AnchorTargets(Quiet):
        def setup(self, bottom, top):
            self._feat_stride = yaml.load(self.param_str_)["feat_stride"]
            height, width = bottom[0].data.shape[-2:]
            top[0].reshape(1, 1, 9 * height, width)
            for i in (1, 2):
                top[i].reshape(1, 36, height, width)

        def forward(self, bottom, top):
            assert bottom[0].data.shape[0] == 1
            height, width = bottom[0].data.shape[-2:]
            im_info = bottom[2].data[0, :]
            assert (height, width) == (im_info[0] // self._feat_stride, im_info[1] // self._feat_stride)
            assert bottom[1].data.shape[1] == 5
            labels = np.empty((1, 9, height, width), dtype=np.float32)
            labels.fill(-1)
            labels[0, ::2], labels[0, 1] = 0, 1
            fill(top[0], labels.reshape((1, 1, 9 * height, width)))
            fill(top[1], np.zeros((1, 36, height, width)))
            fill(top[2], np.ones((1, 36, height, width)))

    class Regions(Quiet):
        def setup(self, bottom, top):
            self._feat_stride = yaml.load(self.param_str_)["feat_stride"]
            top[0].reshape(1, 5)
            if len(top) > 1:
                top[1].reshape(1, 1, 1, 1)

        def forward(self, bottom, top):
            cfg_key = str(self.phase)
            scores = bottom[0].data[:, 9:, :, :].transpose((0, 2, 3, 1)).reshape((-1, 1))
            order = scores.ravel().argsort()[::-1][: CFG[cfg_key]["regions"]]
            corners = np.stack([order % 30, order % 20, order % 30 + 30, order % 20 + 25], 1)
            fill(top[0], np.hstack((np.zeros((len(order), 1), dtype=np.float32), corners)))
            if len(top) > 1:
                fill(top[1], scores[order])

    class RegionTargets(Quiet):
        def setup(self, bottom, top):
            self._classes = yaml.load(self.param_str_)["num_classes"]
            top[0].reshape(1, 5)
            top[1].reshape(1, 1)

        def forward(self, bottom, top):
            all_rois, gt_boxes = bottom[0].data, bottom[1].data
            zeros = np.zeros((gt_boxes.shape[0], 1), dtype=gt_boxes.dtype)
            all_rois = np.vstack((all_rois, np.hstack((zeros, gt_boxes[:, :-1]))))
            assert np.all(all_rois[:, 0] == 0)
            fill(top[0], all_rois)
            fill(top[1], np.arange(len(all_rois)) % self._classes)
"""

NET = """
    layer { name: 'input-data' type: 'Python' top: 'data' top: 'im_info' top: 'gt_boxes'
      python_param { module: 'rcnn_like' layer: 'Images' param_str: "'num_classes': 3" } }
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {
      num_output: 8 kernel_size: 3 pad: 1 stride: 16 weight_filler { type: "gaussian" std: 0.1 } } }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "cls" type: "Convolution" bottom: "conv" top: "cls" convolution_param {
      num_output: 18 kernel_size: 1 weight_filler { type: "gaussian" std: 0.01 } } }
    layer { name: "box" type: "Convolution" bottom: "conv" top: "box" convolution_param {
      num_output: 36 kernel_size: 1 weight_filler { type: "gaussian" std: 0.01 } } }
    layer { name: "two" type: "Reshape" bottom: "cls" top: "two"
      reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 0 } } }
    layer { name: 'rpn-data' type: 'Python' bottom: 'cls' bottom: 'gt_boxes' bottom: 'im_info' bottom: 'data'
      top: 'rpn_labels' top: 'targets' top: 'weights'
      python_param { module: 'rcnn_like' layer: 'AnchorTargets' param_str: "'feat_stride': 16" } }
    layer { name: "loss_rpn" type: "SoftmaxWithLoss" bottom: "two" bottom: "rpn_labels" top: "loss_rpn"
      propagate_down: 1 propagate_down: 0 loss_weight: 1 loss_param { ignore_label: -1 normalize: true } }
    layer { name: "loss_box" type: "SmoothL1LossOHEM" bottom: "box" bottom: "targets" bottom: "weights" top: "loss_box"
      propagate_down: true propagate_down: false propagate_down: false }
    layer { name: "prob" type: "Softmax" bottom: "two" top: "prob" }
    layer { name: 'all' type: 'Reshape' bottom: 'prob' top: 'all'
      reshape_param { shape { dim: 0 dim: 18 dim: -1 dim: 0 } } }
    layer { name: 'proposal' type: 'Python' bottom: 'all' bottom: 'box' bottom: 'im_info' top: 'rpn_rois' top: 'scores'
      python_param { module: 'rcnn_like' layer: 'Regions' param_str: "'feat_stride': 16" } }
    layer { name: 'silence' type: 'Silence' bottom: 'scores' }
    layer { name: 'roi-data' type: 'Python' bottom: 'rpn_rois' bottom: 'gt_boxes' top: 'rois' top: 'labels'
      python_param { module: 'rcnn_like' layer: 'RegionTargets' param_str: "'num_classes': 3" } }
    layer { name: "pool" type: "ROIPooling" bottom: "conv" bottom: "rois" top: "pool"
      roi_pooling_param { pooled_w: 3 pooled_h: 3 spatial_scale: 0.0625 } }
    layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param {
      num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "labels" top: "loss"
      propagate_down: 1 propagate_down: 0 loss_weight: 1 }
"""

ROIDB = [(96, [[10, 10, 40, 40, 1.0], [50, 20, 90, 60, 2]]), (128, [[5, 5, 60, 50, 2.0]])]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, code in (("yaml", YAML), ("rcnn_like", LAYERS)):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "net.prototxt").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("yaml", "rcnn_like"):
        sys.modules.pop(name, None)


def test_layers_of_faster_rcnn_train_end_to_end(folder):
    solver = caffe_pb2.SolverParameter(train_net=str(folder / "net.prototxt"), base_lr=0.01, lr_policy="fixed")
    solver.random_seed = 1
    (folder / "solver.prototxt").write_text(str(solver))
    solver = caffe.SGDSolver(str(folder / "solver.prototxt"))
    solver.net.layers[0].set_roidb(ROIDB)
    losses, counts = [], []
    for _ in range(20):
        solver.step(1)
        losses.append(sum(float(solver.net.blobs[name].data) for name in ("loss_rpn", "loss")))
        counts.append((solver.net.blobs["rois"].shape, solver.net.blobs["data"].shape[-1]))
    assert counts[:3] == [((9, 5), 96), ((8, 5), 128), ((9, 5), 96)]
    assert sum(losses[-4:]) < 0.98 * sum(losses[:4])
    assert solver.net.blobs["scores"].data.shape == (7, 1)


def test_the_phase_of_a_python_layer_has_a_name_and_is_a_number(folder):
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
    net.layers[0].set_roidb(ROIDB)
    net.forward()
    assert net.blobs["rpn_rois"].data.shape == (4, 5)
    phase = net.layers[0].guest.user.phase
    assert (phase, str(phase), f"{phase:d}", phase == caffe.TEST) == (1, "TEST", "1", True)


def test_layers_of_one_piece_give_what_the_steps_give(folder):
    results = []
    for whole in (False, True):
        caffe.set_random_seed(2)
        net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
        net.layers[0].set_roidb(ROIDB)
        if whole:
            net.optimize()
        results.append([{name: array.copy() for name, array in net.forward().items()} for _ in range(3)])
    for one, other in zip(*results, strict=True):
        for name, array in one.items():
            np.testing.assert_allclose(other[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_module_that_the_users_code_lacks_is_named_with_the_way_out(folder):
    (folder / "yaml.py").write_text("import no_such_parser")
    with pytest.raises(
        LayerError, match=r"No module named 'no_such_parser'; install what has this module for .*python"
    ):
        caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
