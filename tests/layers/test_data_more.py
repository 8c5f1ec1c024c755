"""Data sources that BVLC Caffe does not have, and the device of the delivered batches."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import torch

from caffe.data.pipeline import shard
from caffe.errors import CaffeError, DataError, FileError, LayerError
from caffe.layers.data import normalized
from caffe.net import Net
from caffe.proto import caffe_pb2
from tests.data.helpers import images, layer, write_lmdb, write_png

ARRAYS = 'name: "a" type: "ArrayData" top: "x" top: "y" array_data_param { %s batch_size: 4 } %s'
FOLDERS = 'name: "f" type: "ImageData" top: "data" top: "label" image_data_param { source: "%s" batch_size: 4 %s }'


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def take(source, count):
    tops = [source() for _ in range(count)]
    return [np.concatenate([top[index].numpy() for top in tops]) for index in range(len(tops[0]))]


def test_arrays_of_npz_files_follow_each_other(place):
    x, y = np.random.default_rng(0).normal(size=(7, 3, 2)), np.arange(7)
    np.savez("one.npz", x=x[:5], y=y[:5], z=y)
    np.savez_compressed("two.npz", y=y[5:], x=x[5:])
    with closing(layer(ARRAYS % ('source: "one.npz" source: "two.npz"', ""))) as source:
        got = take(source, 3)
    order = np.arange(12) % 7
    np.testing.assert_array_equal(got[0], x[order].astype(np.float32))
    np.testing.assert_array_equal(got[1], order)


def test_npy_files_of_images_are_transformed_and_shuffled(place):
    pixels = images(6, (3, 5, 7))
    np.save("x.npy", pixels)
    np.save("y.npy", np.arange(6))
    text = ARRAYS % ('source: "x.npy" source: "y.npy" shuffle: true', "transform_param { crop_size: 3 mean_value: 9 }")
    with closing(layer(text, caffe_pb2.TEST)) as source:
        data, labels = take(source, 3)
    assert sorted(labels[:6]) == sorted(labels[6:]) == list(range(6))
    assert labels[:6].tolist() != labels[6:].tolist()
    np.testing.assert_array_equal(data, pixels[labels.astype(int)][:, :, 1:4, 2:5].astype(np.float32) - 9)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ('source: "no.npz"', 'cannot open "no.npz": No such file or directory'),
        ('source: "text.npz"', '"text.npz" is not an .npz file'),
        ('source: "x.npy"', "1 .npy files for 2 tops"),
        ('source: "fine.npz" source: "x.npy"', '"x.npy" is an .npy file'),
        ('source: "other.npz"', 'no array "y"'),
        ('source: "rows.npz"', "differ in their number of rows"),
        ('source: "words.npz"', "expected numbers"),
        ('source: "cut.npz"', "cut.npz"),
        ("", "names no file"),
    ],
)
def test_arrays_that_cannot_be_used(given, part, place):
    x, y = np.ones((5, 2)), np.ones(5)
    np.savez("fine.npz", x=x, y=y)
    np.save("x.npy", x)
    (place / "text.npz").write_text("hello")
    np.savez("other.npz", x=x)
    np.savez("rows.npz", x=x, y=y[:3])
    np.savez("words.npz", x=x, y=np.array(["a"] * 5))
    (place / "cut.npz").write_bytes((place / "fine.npz").read_bytes()[:150])
    with pytest.raises(CaffeError, match=part) as raised:
        take(layer(ARRAYS % (given, "")), 3)
    assert 'layer "a" (ArrayData)' in str(raised.value)


def test_class_folders(place):
    pixels = images(6, (3, 5, 7))
    names = ["cat/1.png", "cat/0.PNG", "dog/deep/a b.png", "ant/x.png", "cat/2.png", "dog/z.png"]
    for name, image in zip(names, pixels, strict=True):
        (place / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(place / "set" / name, image)
    (place / "set" / "cat" / "notes.txt").write_text("no image")
    (place / "set" / "list.txt").write_text("no folder")
    with closing(layer(FOLDERS % ("set", ""))) as source:
        data, labels = take(source, 2)
    order = [3, 1, 0, 4, 5, 2, 3, 1]
    np.testing.assert_array_equal(labels, [0, 1, 1, 1, 2, 2, 0, 1])
    np.testing.assert_array_equal(data, pixels[order])
    (place / "empty").mkdir()
    with pytest.raises(FileError, match="one sub-folder for each class"):
        layer(FOLDERS % ("empty", ""))
    with pytest.raises(LayerError, match="root_folder goes with a list file"):
        layer(FOLDERS % ("set", 'root_folder: "x/"'))


def test_damaged_images_of_a_folder(place):
    for index, image in enumerate(images(5, (3, 5, 7))):
        write_png(place / f"{index}.png", image)
    (place / "2.png").write_bytes(b"no image")
    (place / "list.txt").write_text("".join(f"{index}.png {index}\n" for index in range(5)))
    with closing(layer(FOLDERS % ("list.txt", ""))) as source, pytest.raises(DataError, match=r'image "2\.png"'):
        take(source, 1)
    with closing(layer(FOLDERS % ("list.txt", "") + "data_param { skip_damaged: true }")) as source:
        _, labels = take(source, 2)
        assert labels.tolist() == [0, 1, 3, 4, 0, 1, 3, 4]
        assert source.skipped == 2


def test_options_of_single_images_are_refused_elsewhere(place):
    np.savez("a.npz", x=np.ones((5, 2)), y=np.ones(5))
    for option in ("skip_damaged: true", "workers: 2"):
        with pytest.raises(LayerError, match=option.partition(":")[0]):
            layer(ARRAYS % ('source: "a.npz"', f"data_param {{ {option} }}"))


def test_shares_are_for_training_only(place, monkeypatch):
    write_lmdb(place / "db", images(6))
    text = 'name: "d" type: "Data" top: "data" top: "label" data_param { source: "db" batch_size: 2 backend: LMDB }'
    monkeypatch.setattr(shard, "_assigned", {"RANK": 1, "WORLD_SIZE": 2})
    for phase, expected in ((caffe_pb2.TRAIN, [1, 3, 5, 1]), (caffe_pb2.TEST, [0, 1, 2, 3])):
        with closing(layer(text, phase)) as source:
            assert take(source, 2)[1].tolist() == expected


NET = """
layer { name: "l" type: "Data" top: "a" top: "b" data_param { source: "db" batch_size: 2 backend: LMDB } }
layer { name: "m" type: "MemoryData" top: "c" top: "d"
  memory_data_param { batch_size: 2 channels: 3 height: 5 width: 7 } }
layer { name: "n" type: "DummyData" top: "e" dummy_data_param { shape { dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "o" type: "DummyData" top: "f" dummy_data_param { shape { dim: 3 } data_filler { value: 7 } } }
"""


def test_every_source_delivers_on_the_device_of_its_net(place):
    write_lmdb(place / "db", images(6))
    (place / "net.prototxt").write_text(NET)
    net = Net("net.prototxt", caffe_pb2.TRAIN, device="cpu")
    with closing(net):
        for source in net.sources.values():
            source.allocate("meta")  # stands for a GPU
        net.set_input_arrays(np.ones((2, 3, 5, 7), np.float32), np.ones(2, np.float32))
        for name, source in net.sources.items():
            tops = source()
            assert [top.device.type for top in tops] == ["meta"] * len(tops), name
            assert tuple(tops[0].shape) == source.shapes[0]


@pytest.mark.parametrize(
    "options", ["", "mean_value: 9 scale: 0.37", "mean_value: 1 mean_value: 2 mean_value: 3 std_value: 7"]
)
def test_normalising_on_the_device_gives_the_same(options, place):
    write_lmdb(place / "db", images(6))
    text = 'name: "d" type: "Data" top: "x" transform_param { crop_size: 4 %s } data_param { source: "db" %s }'
    spec = text % (options, "batch_size: 5 backend: LMDB")
    with closing(layer(spec, caffe_pb2.TEST)) as here, closing(layer(spec, caffe_pb2.TEST)) as there:
        made = there.stream.transformer
        assert made.plain
        made.late = True
        (pixels, _), _ = there.stream.batch(there.state)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(normalized(torch.from_numpy(pixels), made).numpy(), here()[0].numpy())


@pytest.mark.parametrize("options", ["noise: 1", "cutout: 2", "mixup: 1 label_count: 9"])
def test_what_is_more_than_numbers_for_channels_is_not_left_to_the_device(options, place):
    write_lmdb(place / "db", images(6))
    text = (
        'name: "d" type: "Data" top: "x" transform_param { %s } data_param { source: "db" batch_size: 5 backend: LMDB }'
    )
    with closing(layer(text % options)) as source:
        assert not source.stream.transformer.plain


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint8])
def test_arrays_are_transformed_in_their_own_type(place, kind):
    x = (np.arange(5 * 2 * 3 * 4).reshape(5, 2, 3, 4) * (1 if kind is np.uint8 else 0.25)).astype(kind)
    np.savez("x.npz", x=x, y=np.arange(5))
    with closing(layer(ARRAYS % ('source: "x.npz"', "transform_param { scale: 2 mean_value: 1 }"))) as source:
        np.testing.assert_allclose(source()[0], (x[:4].astype(float) - 1) * 2.0)
