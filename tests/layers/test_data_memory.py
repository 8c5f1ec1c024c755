"""MemoryData, DummyData and HDF5Output."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from caffe.errors import LayerError
from caffe.proto import caffe_pb2
from tests.data.helpers import images, layer

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST

MEMORY = (
    'name: "m" type: "MemoryData" top: "x" top: "y" '
    "memory_data_param { batch_size: 2 channels: 3 height: %d width: %d } %s"
)
DUMMY = 'name: "z" type: "DummyData" %s dummy_data_param { %s }'
OUTPUT = 'name: "o" type: "HDF5Output" bottom: "x" bottom: "y" hdf5_output_param { file_name: "%s" }'


# -- MemoryData --------------------------------------------------------------------------------------------------------


def test_arrays_come_batch_by_batch_round_and_round():
    memory = layer(MEMORY % (5, 7, ""))
    data, labels = images(6).astype(np.float32), np.arange(6, dtype=np.float32)
    memory.set_arrays(data, labels)
    for start in (0, 2, 4, 0):
        x, y = memory()
        np.testing.assert_array_equal(x.numpy(), data[start : start + 2])
        assert y.shape == (2, 1, 1, 1)
        assert y.flatten().tolist() == [start, start + 1]
    data[2] = -1
    assert (memory()[0][0] == -1).all(), "arrays are used, not copied"


def test_arrays_of_other_types_are_converted():
    memory = layer(MEMORY % (5, 7, ""))
    memory.set_arrays(images(2), np.array([[3], [4]]))
    x, y = memory()
    assert (x.dtype, y.dtype) == (torch.float32, torch.float32)
    np.testing.assert_array_equal(x.numpy(), images(2))
    frozen = images(2).astype(np.float32)
    frozen.setflags(write=False)
    memory.set_arrays(frozen, [3, 4])
    assert memory()[1].flatten().tolist() == [3, 4]


def test_memory_position_is_the_next_row():
    memory = layer(MEMORY % (5, 7, ""))
    memory.set_arrays(images(6), np.arange(6))
    memory()
    position = memory.position()
    expected = memory()[1].tolist()
    memory()
    memory.seek(position)
    assert memory()[1].tolist() == expected
    with pytest.raises(LayerError, match="was not saved by a layer of this type"):
        memory.seek(b"[]")
    memory.set_arrays(images(2), np.arange(2))
    memory.seek(b'{"row": 4}')
    assert memory()[1].flatten().tolist() == [0, 1], "an array that is shorter now"


def test_datums_and_images_are_transformed_and_arrays_are_not():
    memory = layer(MEMORY % (3, 3, "transform_param { crop_size: 3 scale: 0.5 mean_value: 4 }"), TEST)
    pixels = images(4)
    datums = [caffe_pb2.Datum(channels=3, height=5, width=7, data=x.tobytes(), label=i) for i, x in enumerate(pixels)]
    want = (pixels[:, :, 1:4, 2:5].astype(np.float32) - 4) * 0.5
    memory.add_datums(datums)
    np.testing.assert_array_equal(torch.cat([memory()[0], memory()[0]]).numpy(), want)
    memory.add_images([x.transpose(1, 2, 0) for x in pixels], [9, 8, 7, 6])
    x, y = memory()
    np.testing.assert_array_equal(x.numpy(), want[:2])
    assert y.flatten().tolist() == [9, 8]
    memory.set_arrays(pixels[:, :, :3, :3], np.zeros(4))
    np.testing.assert_array_equal(memory()[0].numpy(), pixels[:2, :, :3, :3])


def test_batch_size_can_change():
    memory = layer(MEMORY % (5, 7, ""))
    memory.set_batch_size(3)
    assert memory.shapes == [(3, 3, 5, 7), (3,)]
    memory.set_arrays(images(3), np.arange(3))
    assert memory()[0].shape == (3, 3, 5, 7)


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (images(3), np.zeros(3), "got 3 rows, expected a multiple of batch_size 2"),
        (images(0), np.zeros(0), "got 0 rows"),
        (images(2), np.zeros(4), "data has 2 rows and labels 4"),
        (images(2, (3, 7, 5)), np.zeros(2), r"data has shape \(2, 3, 7, 5\), expected \(n, 3, 5, 7\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(data, labels, message):
    with pytest.raises(LayerError, match=f'layer "m" .MemoryData.: .*{message}'):
        layer(MEMORY % (5, 7, "")).set_arrays(data, labels)


def test_memory_data_without_data_or_sizes_is_refused():
    memory = layer(MEMORY % (5, 7, ""))
    with pytest.raises(LayerError, match=r"has no data; call net.set_input_arrays"):
        memory()
    with pytest.raises(LayerError, match="set them all in memory_data_param"):
        layer(MEMORY % (0, 7, ""))
    with pytest.raises(LayerError, match="image 0 is 3 x 2 x 7, smaller than crop_size 3"):
        layer(MEMORY % (3, 3, "transform_param { crop_size: 3 }")).add_images(images(2, (2, 7, 3)), [0, 0])
    with pytest.raises(LayerError, match="the images give shape"):
        memory.add_images(images(2, (7, 5, 3)), [0, 0])
    with pytest.raises(LayerError, match="got 2 images and 1 labels"):
        memory.add_images(images(2, (5, 7, 3)), [0])


# -- DummyData ---------------------------------------------------------------------------------------------------------


def test_zeros_are_left_to_the_user():
    dummy = layer(DUMMY % ('top: "a" top: "b"', "shape { dim: 2 dim: 3 }"))
    assert dummy.shapes == [(2, 3), (2, 3)]
    assert dummy() == (None, None)


def test_constants_are_filled_once_and_others_each_time():
    fillers = 'data_filler { type: "constant" value: 4 } data_filler { type: "gaussian" std: 2 }'
    dummy = layer(DUMMY % ('top: "a" top: "b"', "shape { dim: 2 dim: 3 } shape { dim: 50 }" + fillers))
    assert dummy.shapes == [(2, 3), (50,)]
    a, b = dummy()
    assert (a == 4).all()
    again, other = dummy()
    assert again is None, "what the user wrote stays"
    assert not torch.equal(b, other)
    assert 1 < other.std() < 3


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "xavier", "msra", "positive_unitball"])
def test_every_filler_fills_and_follows_the_seed(kind):
    dummy = layer(DUMMY % ('top: "a"', f'shape {{ dim: 7 dim: 5 }} data_filler {{ type: "{kind}" }}'))
    torch.manual_seed(1)
    (first,) = dummy()
    (second,) = dummy()
    torch.manual_seed(1)
    assert torch.equal(dummy()[0], first)
    assert not torch.equal(first, second)


def test_legacy_sizes():
    text = "num: 2 channels: 3 channels: 4 height: 5 width: 7 width: 8"
    dummy = layer(DUMMY % ('top: "a" top: "b"', text))
    assert dummy.shapes == [(2, 3, 5, 7), (2, 4, 5, 8)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "must specify shape once, or once per top .3.; it is given 0 times"),
        ("shape { dim: 2 } shape { dim: 2 }", "it is given 2 times"),
        ("shape { dim: 2 } data_filler { } data_filler { }", "has 2 data_filler for 3 tops; give none, 1 or 3"),
        ("shape { dim: 2 } num: 2", "has both shape and num"),
        ("num: 2 channels: 2 height: 2", "must specify width once"),
        ('shape { dim: 2 } data_filler { type: "gausian" }', 'unknown filler type "gausian"; did you mean'),
        ("shape { dim: -2 }", r"shape \(-2,\) has a negative size"),
    ],
)
def test_dummy_data_that_cannot_work_is_refused(options, message):
    with pytest.raises(LayerError, match=f'layer "z" .DummyData.: .*{message}'):
        layer(DUMMY % ('top: "a" top: "b" top: "c"', options))


# -- HDF5Output --------------------------------------------------------------------------------------------------------


def test_output_is_four_dimensional_and_grows(tmp_path):
    path = tmp_path / "out.h5"
    x, y = torch.randn(3, 5), torch.arange(3.0)
    output = layer(OUTPUT % path, TEST, x.to("meta"), y.to("meta"))
    assert output(x, y) == ()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["data"][...], x.numpy()[:, :, None, None])
        np.testing.assert_array_equal(file["label"][...], y.numpy()[:, None, None, None])
    output(x.requires_grad_() * 2, y + 3)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["data"][3:, :, 0, 0], 2 * x.detach().numpy())
        assert file["label"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_new_net_starts_a_new_file(tmp_path):
    path = tmp_path / "out.h5"
    for rows in (3, 2):
        x, y = torch.randn(rows, 5, 7), torch.zeros(rows, 1)
        layer(OUTPUT % path, TEST, x, y)(x, y)
    with h5py.File(path) as file:
        assert file["data"].shape == (2, 5, 7, 1)


def test_trial_runs_write_nothing(tmp_path):
    path = tmp_path / "out.h5"
    x, y = torch.zeros(3, 5, device="meta"), torch.zeros(3, device="meta")
    output = layer(OUTPUT % path, TEST, x, y)
    assert output.infer(x, y) == ()
    with FakeTensorMode():
        assert output(torch.zeros(3, 5), torch.zeros(3)) == ()
    assert not path.exists()


def test_output_that_cannot_be_written_is_refused(tmp_path):
    x, y = torch.zeros(3, 5), torch.zeros(3)
    with pytest.raises(LayerError, match="file_name is not set"):
        layer(OUTPUT % "", TEST, x, y)
    with pytest.raises(LayerError, match=r"folder .*nowhere.* does not exist"):
        layer(OUTPUT % (tmp_path / "nowhere" / "out.h5"), TEST, x, y)
    with pytest.raises(LayerError, match="data has 3 rows and label 2"):
        layer(OUTPUT % (tmp_path / "out.h5"), TEST, x, y[:2])
    with pytest.raises(LayerError, match="at most 4 axes fit"):
        layer(OUTPUT % (tmp_path / "out.h5"), TEST, torch.zeros(3, 1, 1, 1, 1), y)
    (tmp_path / "out.h5").mkdir()
    with pytest.raises(LayerError, match="cannot write the HDF5 file"):
        layer(OUTPUT % (tmp_path / "out.h5"), TEST, x, y)(x, y)
