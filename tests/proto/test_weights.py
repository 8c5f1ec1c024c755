"""Weight files of every format, compared with their content as read by protobuf and h5py."""

from __future__ import annotations

import os
import re
import resource

import h5py
import numpy as np
import pytest

from caffe.errors import FileError
from caffe.proto import blobs, caffe_pb2, state, weights, wire
from tests.conftest import SHARED, reference, shared

MODELS = sorted((SHARED / "models").glob("*/*.caffemodel"))
ARRAYS = {
    "conv": [np.arange(210, dtype=np.float32).reshape(2, 3, 5, 7) / 7, np.arange(2, dtype=np.float32)],
    "relu": [],
    "inception/3x3": [np.array(0.25, np.float32)],
}


def net() -> caffe_pb2.NetParameter:
    layers = [caffe_pb2.LayerParameter(name=name, type="T", top=[name]) for name in ARRAYS]
    layers[0].convolution_param.num_output = 2
    return caffe_pb2.NetParameter(name="n", layer=layers)


def parsed(path) -> dict[str, list[np.ndarray]]:
    """Return the blobs by a full parse, for files whose blobs are float32."""
    message = caffe_pb2.NetParameter.FromString(path.read_bytes())
    return {
        layer.name: [np.array(b.double_data or b.data, np.float32) for b in layer.blobs]
        for layer in (*message.layer, *message.layers)
    }


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, arrays in expected.items():
        assert len(got[name]) == len(arrays), name
        for own, array in zip(got[name], arrays, strict=True):
            np.testing.assert_array_equal(own, array, strict=True)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_model_is_read(path):
    layers = weights.read(path)
    assert any(layers.values())
    for arrays in layers.values():
        for array in arrays:
            assert array.dtype == np.float32
            assert array.flags.writeable
            assert array.flags.aligned
            assert np.isfinite(array).all()
    if "fp16" not in str(path):
        expected = parsed(path)
        assert layers.keys() == expected.keys()
        for name, arrays in expected.items():
            for own, array in zip(layers[name], arrays, strict=True):
                np.testing.assert_array_equal(own.ravel(), array, err_msg=name)


def test_half_precision_is_the_single_precision_model_rounded():
    half = weights.read(shared("models", "hyperlpr_fp16", "HorizonalFinemapping.caffemodel"))
    single = weights.read(shared("models", "hyperlpr_fp32", "HorizonalFinemapping.caffemodel"))
    compared = 0
    for name in half.keys() & single.keys():
        for own, array in zip(half[name], single[name], strict=True):
            np.testing.assert_array_equal(own, array.astype(np.float16).astype(np.float32))
            compared += own.size
    assert compared > 10000


@pytest.mark.parametrize("name", ["v0", "v1", "double_data"])
def test_old_models_hold_what_caffe_loads(name):
    record = np.load(shared("golden", "upgrade", f"record_model_{name}.npz"))
    layers = weights.read(shared("golden", "upgrade", f"model_{name}.in.caffemodel"))
    for key in (key for key in record.files if key.startswith("params/")):
        layer, index = key.split("/")[1:]
        own, expected = layers[layer][int(index)], record[key]
        assert weights.fits(own.shape, expected.shape)
        np.testing.assert_array_equal(own.reshape(expected.shape).astype(np.float32), expected)


def test_padding_layers_of_v0_are_no_layers(tmp_path):
    message = caffe_pb2.NetParameter()
    for name, kind in (("pad", "padding"), ("conv", "conv")):
        message.layers.add().layer.MergeFrom(caffe_pb2.V0LayerParameter(name=name, type=kind))
    (tmp_path / "w").write_bytes(message.SerializeToString())
    assert weights.read(tmp_path / "w") == {"conv": []}


@pytest.mark.parametrize("solver", ["adam_plain", "sgd_mults"])
def test_a_snapshot_written_again_is_the_same_byte_for_byte(tmp_path, solver):
    source = shared("golden", "solvers", solver, "snap_iter_15.caffemodel")
    message = caffe_pb2.NetParameter.FromString(source.read_bytes())
    weights.write(tmp_path / "w", message, weights.read(source))
    assert (tmp_path / "w").read_bytes() == source.read_bytes()
    hdf5 = weights.read(source.with_name(source.name + ".h5"))
    assert_same(dict(sorted(weights.read(source).items())), hdf5)


def test_written_weights_are_read_by_protobuf_and_by_us(tmp_path):
    path = tmp_path / "w.caffemodel"
    diffs = {name: [-array for array in arrays] for name, arrays in ARRAYS.items()}
    weights.write(path, net(), ARRAYS, diffs)
    message = caffe_pb2.NetParameter.FromString(path.read_bytes())
    assert list(message.layer[0].blobs[0].shape.dim) == [2, 3, 5, 7]
    assert message.layer[0].convolution_param.num_output == 2
    assert_same(weights.read(path), ARRAYS)
    assert_same(weights.read_diffs(path), diffs)
    weights.write(path, net(), ARRAYS)
    assert not any(weights.read_diffs(path).values())


def test_doubles(tmp_path):
    path = tmp_path / "w.caffemodel"
    doubles = {name: [array / np.float64(3) for array in arrays] for name, arrays in ARRAYS.items()}
    weights.write(path, net(), doubles)
    assert_same(weights.read(path), doubles)
    assert not caffe_pb2.NetParameter.FromString(path.read_bytes()).layer[0].blobs[0].data
    weights.write(path, net(), doubles, double=False)
    assert weights.read(path)["conv"][0].dtype == np.float32
    weights.write(path, net(), ARRAYS, double=True)
    assert weights.read(path)["conv"][0].dtype == np.float64


def test_hdf5(tmp_path):
    path = tmp_path / "w.h5"
    arrays = {**ARRAYS, "inception": [np.ones(3, np.float32)], "shared": [None, np.zeros((2, 3))]}
    weights.write_hdf5(path, arrays, diffs=ARRAYS)
    with h5py.File(path) as file:
        assert file["data/inception/3x3/0"].dtype == np.float32
        assert list(file["data/shared"]) == ["1"]
        assert list(file["data/relu"]) == []
        assert file["diff/conv/1"].shape == (2,)
    got = weights.read(path)
    assert got["shared"].pop(0) is None
    arrays["shared"].pop(0)
    assert_same(got, dict(sorted(arrays.items())))
    assert_same(weights.read_diffs(path), dict(sorted(ARRAYS.items())))


@pytest.mark.parametrize("name", ["copy_from_shared_h5", "copy_from_renamed_hdf5"])
def test_hdf5_weights_of_caffe(tmp_path, name):
    path = tmp_path / "w.h5"
    path.write_bytes(np.load(shared("golden", "nets", f"{name}.npz"))["files/w.h5"].tobytes())
    with h5py.File(path) as file:
        expected = {name: [layer[key][()] for key in sorted(layer)] for name, layer in file["data"].items()}
    assert_same(weights.read(path), expected)
    assert any(expected.values())


def test_hdf5_disk_full(tmp_path):
    path = tmp_path / "w.h5"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(FileError, match=r"w.h5: cannot write: .* MB free.*the old file is unchanged"):
            weights.write_hdf5(path, {"l": [np.zeros((1 << 9, 1 << 9), np.float32)]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["w.h5"]


def test_blobs_and_arrays():
    for array in (*ARRAYS["conv"], np.array(3.0, np.float32), np.zeros((2, 0), np.float32), np.ones((3, 2))):
        proto = weights.blob_to_proto(array)
        assert list(proto.shape.dim) == list(array.shape)
        np.testing.assert_array_equal(weights.blob_from_proto(proto), array, strict=True)
    both = weights.blob_to_proto(ARRAYS["conv"][1], diff=np.array([5.0, 7.0]))
    np.testing.assert_array_equal(weights.blob_from_proto(both, diff=True), np.array([5, 7], np.float32), strict=True)


def test_transposed_arrays_are_stored_in_order():
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert list(weights.blob_to_proto(array).data) == [0, 3, 1, 4, 2, 5]


def test_unpacked_numbers_and_shapes():
    """Writers without packed fields write a key before every number."""
    proto = b"".join(b"\x2d" + np.float32(v).tobytes() for v in (1.5, 2.5)) + b"\x3a\x04\x08\x02\x08\x01"
    np.testing.assert_array_equal(
        blobs.decode(memoryview(proto), "b"), np.array([[1.5], [2.5]], np.float32), strict=True
    )


def test_a_packed_field_in_two_parts():
    proto = caffe_pb2.BlobProto(data=[1, 2]).SerializeToString() + caffe_pb2.BlobProto(data=[3]).SerializeToString()
    assert blobs.decode(memoryview(proto), "b").tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "dtype", "expected"),
    [(0, "<f8", np.float64), (1, "<f4", np.float32), (2, "<f2", np.float32), (3, "<i4", np.float32)],
)
def test_raw_data_of_nvcaffe(kind, dtype, expected):
    values = np.array([1, -2, 3])
    raw = values.astype(dtype).tobytes()
    proto = b"\x3a\x03\x0a\x01\x03" + b"\x50" + bytes([kind]) + b"\x62" + bytes([len(raw)]) + raw
    np.testing.assert_array_equal(blobs.decode(memoryview(proto), "b"), values.astype(expected), strict=True)


def test_legacy_dimensions_win_and_fit():
    proto = caffe_pb2.BlobProto(num=1, channels=1, height=2, width=3, data=range(6))
    proto.shape.dim.append(6)
    assert weights.blob_from_proto(proto).shape == (1, 1, 2, 3)
    assert weights.fits((1, 1, 2, 3), (2, 3))
    assert weights.fits((1, 1, 1, 1), ())
    assert weights.fits((5, 2, 3), (5, 2, 3))
    assert not weights.fits((1, 5, 2, 3), (2, 3))
    assert not weights.fits((1, 2, 3), (2, 3))
    assert not weights.fits((1, 1, 2, 3, 5), (1, 2, 3, 5))


def test_mean_files(tmp_path):
    paths = sorted((reference("golden", "data")).glob("mean_*.binaryproto"))
    for path in paths:
        proto = caffe_pb2.BlobProto.FromString(path.read_bytes())
        mean = weights.read_mean(path)
        assert mean.shape == (1, proto.channels, proto.height, proto.width)
        assert mean.ravel().tolist() == list(proto.data)
        weights.write_mean(tmp_path / "m", mean[0])
        assert (tmp_path / "m").read_bytes() == path.read_bytes()


def test_a_mean_file_with_one_legacy_dimension(tmp_path):
    (tmp_path / "m").write_bytes(caffe_pb2.BlobProto(num=0, data=[]).SerializeToString() + b"\x2a\0")
    assert weights.read_mean(tmp_path / "m").shape == (0, 0, 0, 0)


MODEL = caffe_pb2.NetParameter(layer=[caffe_pb2.LayerParameter(name="l", blobs=[weights.blob_to_proto(np.ones(9))])])
SOLVER = caffe_pb2.SolverState(iter=5, learned_net="a.caffemodel").SerializeToString()
MEAN = caffe_pb2.BlobProto(num=1, channels=1, height=1, width=1, data=[2]).SerializeToString()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (SOLVER, r"is a solver state .*; to continue training from it use -snapshot"),
        (MEAN, r"is a single blob, such as a mean file"),
        (b'name: "LeNet"\nlayer { }', r"is a text file; expected weights.*a net's definition is given as -model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is only a pointer.*git lfs pull"),
        (b"", "is an empty file"),
        (b"PK\x03\x04abc", "is an archive or a PyTorch file"),
        (b"\x89PNG\r\n\x1a\n\0\0", "is not a file that Caffe writes, or a damaged one"),
        (MODEL.SerializeToString()[:-20], "is cut off: it has 67 bytes and lacks at least 20 more"),
        (MODEL.SerializeToString() + b"\xff\xff", "is cut off: it has 89 bytes and lacks at least 1 more"),
        (caffe_pb2.NetParameter(name="only\x01").SerializeToString(), "contains no layers"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "the HDF5 file is damaged or cut off"),
    ],
)
def test_other_files_given_as_weights(tmp_path, content, words):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(content)
    with pytest.raises(FileError, match=f"w.caffemodel: {words}"):
        weights.read(path)


def test_errors_name_layer_and_blob(tmp_path):
    path = tmp_path / "w.caffemodel"
    broken = caffe_pb2.BlobProto(data=[1, 2], shape=caffe_pb2.BlobShape(dim=[3, 5]))
    path.write_bytes(
        caffe_pb2.NetParameter(layer=[caffe_pb2.LayerParameter(name="c", blobs=[broken])]).SerializeToString()
    )
    with pytest.raises(FileError, match=re.escape('layer "c": blob 0: shape (3, 5) has 15 numbers, but 2 are stored')):
        weights.read(path)
    with pytest.raises(FileError, match=r'file not found; did you mean "w.caffemodel"'):
        weights.read(tmp_path / "w.cafemodel")


def test_mean_and_state_readers_reject_weights(tmp_path):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(MODEL.SerializeToString())
    with pytest.raises(FileError, match=r"is a binary net or its weights .* expected a mean file"):
        weights.read_mean(path)
    with pytest.raises(FileError, match=r"expected a solver state .*; to start from these weights use -weights"):
        state.read(path)
    weights.write_hdf5(tmp_path / "w.h5", ARRAYS)
    with pytest.raises(FileError, match="to start from these weights use -weights"):
        state.read(tmp_path / "w.h5")


def test_a_net_whose_layers_are_damaged(tmp_path):
    """The blobs can be read, but the definition of the net cannot."""
    layer = wire.key(1, 1) + b"a" + wire.key(6, 2) + b"\xff\xff"
    (tmp_path / "w").write_bytes(wire.key(1, 1) + b"n" + wire.key(100, len(layer)) + layer)
    assert weights.read(tmp_path / "w") == {"a": []}
    with pytest.raises(FileError, match="w: the description of its layers is damaged"):
        weights.skeleton(tmp_path / "w")


@pytest.mark.parametrize("shape", [[0] + [1 << 62] * 3, [1] * 70, [(1 << 64) - 1, 0]])
def test_shapes_that_no_array_has(shape):
    dims = b"".join(map(wire.varint, shape))
    packed = wire.key(1, len(dims)) + dims
    with pytest.raises(FileError, match="here: no array has the shape"):
        blobs.decode(memoryview(wire.key(7, len(packed)) + packed), "here")
