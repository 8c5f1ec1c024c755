"""Data, ImageData, WindowData and HDF5Data: batches that the reference cases do not cover, positions, errors."""

from __future__ import annotations

import json
import logging
from contextlib import closing

import h5py
import numpy as np
import pytest
import torch

from caffe.data.databases.datum import encode_datum
from caffe.data.databases.lmdb import LmdbWriter
from caffe.data.streams import windows as window_module
from caffe.errors import CaffeError, DataError, FileError, LayerError
from caffe.proto import caffe_pb2, weights
from tests.data.helpers import copy_of, images, layer, write_lmdb, write_png

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST

DATA = 'name: "d" type: "Data" top: "x" top: "y" data_param { source: "db" batch_size: 4 backend: LMDB %s } %s'
IMAGES = 'name: "d" type: "ImageData" top: "x" top: "y" image_data_param { source: "list.txt" batch_size: 4 %s } %s'
WINDOWS = (
    'name: "d" type: "WindowData" top: "x" top: "y" window_data_param { source: "w.txt" batch_size: 4 %s } '
    "transform_param { crop_size: 6 %s }"
)
HDF5 = 'name: "d" type: "HDF5Data" top: "x" top: "y" hdf5_data_param { source: "h5.txt" batch_size: 4 %s } %s'


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with an LMDB, images, windows and HDF5 files of known contents."""
    monkeypatch.chdir(tmp_path)
    write_lmdb(tmp_path / "db", images(11))
    for index, image in enumerate(images(5, (3, 9, 13))):
        write_png(tmp_path / f"a b{index}.png", image)
    (tmp_path / "list.txt").write_text("".join(f"a b{index}.png {index}\n" for index in range(5)))
    blocks = [
        f"# {index}\na b{index}.png\n3\n9\n13\n3\n{index + 1} 0.9 0 1 7 8\n1 0.1 2 2 5 6\n2 0.2 1 0 12 4\n"
        for index in range(5)
    ]
    (tmp_path / "w.txt").write_text("".join(blocks))
    for name, first, rows in (("one.h5", 0, 5), ("two.h5", 5, 3)):
        write_h5(tmp_path / name, first, rows)
    (tmp_path / "h5.txt").write_text("one.h5\ntwo.h5\n")
    return tmp_path


def write_h5(path, first, rows) -> None:
    values = np.arange(first, first + rows)
    with h5py.File(path, "w") as file:
        file["x"] = values[:, None] * np.array([1.0, 10.0, 100.0])
        file["y"] = values


def labels(source, batches: int) -> list[list[int]]:
    """Return the labels of the next batches."""
    return [source()[1].int().tolist() for _ in range(batches)]


RANDOM = {
    "Data": DATA % ("", "transform_param { crop_size: 3 mirror: true }"),
    "ImageData": IMAGES % ("shuffle: true rand_skip: 4", "transform_param { crop_size: 7 mirror: true }"),
    "WindowData": WINDOWS % ("context_pad: 1 fg_fraction: 0.5", "mirror: true"),
    "HDF5Data": HDF5 % ("shuffle: true", ""),
}


# -- positions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RANDOM)
def test_a_resumed_run_gets_the_batches_of_the_unbroken_one(kind, place):
    with closing(layer(RANDOM[kind])) as source:
        positions, batches = [], []
        for _ in range(12):
            positions.append(source.position())
            batches.append(source())
        assert len({tuple(x.flatten().tolist()) for x, _ in batches}) > 8, "the batches are not all alike"
        for start in (11, 0, 3, 7):
            source.seek(positions[start])
            assert source.position() == positions[start]
            for x, y in batches[start : start + 3]:
                got = source()
                assert torch.equal(got[0], x)
                assert torch.equal(got[1], y)
    with closing(layer(RANDOM[kind])) as fresh:  # has another seed until it seeks
        fresh.seek(positions[5])
        for x, y in batches[5:]:
            got = fresh()
            assert torch.equal(got[0], x)
            assert torch.equal(got[1], y)


@pytest.mark.parametrize("kind", RANDOM)
def test_a_batch_follows_from_its_state_alone(kind, place):
    with closing(layer(RANDOM[kind])) as shared:
        seen = []
        for seed in range(8):
            with closing(layer(RANDOM[kind])) as fresh:
                state = fresh.stream.start(seed)
                for expected, got in zip(fresh.stream.batch(state)[0], shared.stream.batch(state)[0], strict=True):
                    np.testing.assert_array_equal(got, expected)
            seen.append(got.tolist())
        assert len(set(map(tuple, seen))) > (1 if kind != "Data" else 0), "another seed, another batch"


@pytest.mark.parametrize("kind", RANDOM)
def test_the_seed_comes_from_torch(kind, place):
    def run(seed):
        torch.manual_seed(seed)
        with closing(layer(RANDOM[kind])) as source:
            return torch.cat([source()[0].flatten() for _ in range(4)])

    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))


def test_a_strange_position_is_refused(place):
    with closing(layer(RANDOM["Data"])) as source, closing(layer(RANDOM["HDF5Data"])) as other:
        for position in (b"x", b"[]", other.position()):
            with pytest.raises(LayerError, match=r'layer "d" .*was not saved by a layer of this type'):
                source.seek(position)


@pytest.mark.parametrize("kind", RANDOM)
def test_a_closed_layer_raises_an_error(kind, place):
    source = layer(RANDOM[kind])
    source()
    source.close()
    source.close()
    with pytest.raises(LayerError, match="has been closed"):
        source()


# -- Data --------------------------------------------------------------------------------------------------------------


def test_records_follow_one_another_round_and_round(place):
    with closing(layer(DATA % ("", ""))) as source:
        x, y = source()
        assert (x.shape, y.shape, x.dtype) == ((4, 3, 5, 7), (4,), torch.float32)
        np.testing.assert_array_equal(x.numpy(), images(11)[:4])
        assert labels(source, 3) == [[4, 5, 6, 7], [8, 9, 10, 0], [1, 2, 3, 4]]


def test_train_and_test_read_one_database_at_once(place):
    with closing(layer(DATA % ("", ""))) as one, closing(layer(DATA % ("", ""), TEST)) as two:
        one()
        assert labels(one, 1) == [[4, 5, 6, 7]]
        assert labels(two, 1) == [[0, 1, 2, 3]]


def test_label_is_left_out_with_one_top(place):
    with closing(layer((DATA % ("", "")).replace('top: "y"', ""))) as source:
        assert source.shapes == [(4, 3, 5, 7)]
        assert len(source()) == 1


def test_rand_skip_passes_over_some_records(place):
    firsts = set()
    for seed in range(12):
        torch.manual_seed(seed)
        with closing(layer(DATA % ("rand_skip: 3", ""))) as source:
            firsts.add(labels(source, 1)[0][0])
    assert firsts == {0, 1, 2}


def test_force_encoded_color_makes_grey_images_colour(place):
    folder = copy_of("lmdb_encoded_gray", place)
    with closing(layer(DATA.replace('"db"', f'"{folder}"') % ("", "transform_param { crop_size: 5 }"))) as source:
        source()
        with pytest.raises(DataError, match="is 3 x 5 x 5, but the batch began with 1 x 5 x 5"):
            source()
    text = DATA.replace('"db"', f'"{folder}"') % ("force_encoded_color: true", "transform_param { crop_size: 5 }")
    with closing(layer(text)) as source:
        assert all(source()[0].shape == (4, 3, 5, 5) for _ in range(3))
    with pytest.raises(LayerError, match="force_encoded_color and force_gray"):
        layer(DATA % ("force_encoded_color: true", "transform_param { force_gray: true }"))


def test_a_bad_record_is_named_in_its_turn(place):
    with LmdbWriter("bad") as writer:
        for index in range(6):
            writer.put(b"%03d" % index, encode_datum(images(1)[0], index) if index != 5 else b"\xff")
    with closing(layer(DATA.replace('"db"', '"bad"') % ("", ""))) as source:
        source()
        for _ in range(2):
            with pytest.raises(DataError, match=r'^layer "d" .Data.: "bad": record "005" is not a Datum message'):
                source()


def test_the_log_has_the_lines_of_caffe(place, caplog):
    with caplog.at_level(logging.INFO, "caffe"), closing(layer(DATA % ("", ""))) as source:
        labels(source, 3)
    lines = [f"{record.place}] {record.getMessage()}" for record in caplog.records]
    assert lines[:2] == ["db_lmdb.cpp:35] Opened lmdb db", "data_layer.cpp:45] output data size: 4,3,5,7"]
    assert "data_layer.cpp:73] Restarting data prefetching from start." in lines


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (DATA.replace('"db"', '"nowhere"') % ("", ""), FileError, 'LMDB database "nowhere" not found'),
        (DATA.replace("LMDB", "LEVELDB") % ("", ""), FileError, "is an LMDB database, not a LevelDB one"),
        (DATA.replace("batch_size: 4", "") % ("", ""), LayerError, "batch_size is 0"),
        (DATA % ("prefetch: 0", ""), LayerError, "prefetch is 0"),
        (DATA % ("", "transform_param { crop_size: 6 }"), DataError, '"db": record "00000000" is 3 x 5 x 7, smaller'),
        (DATA % ("", 'transform_param { mean_file: "m" mean_value: 2 }'), DataError, "mean_file and mean_value"),
        (DATA % ("", 'transform_param { mean_file: "m" }'), FileError, '"?m"?'),
        (IMAGES.replace("list.txt", "no.txt") % ("", ""), FileError, 'cannot open the image list "no.txt"'),
        (IMAGES % ("new_height: 3", ""), LayerError, "new_height is 3 and new_width 0; set both or none"),
        (IMAGES % ('root_folder: "r"', ""), DataError, 'image "ra b0.png" cannot be read'),
        (IMAGES % ("", "transform_param { force_gray: true }"), LayerError, "use is_color"),
        (WINDOWS % ("context_pad: 3", ""), LayerError, "leaves nothing of crop_size 6"),
        (WINDOWS % ('crop_mode: "round"', ""), LayerError, 'crop_mode is "round"'),
        (WINDOWS % ("fg_fraction: 1.5", ""), LayerError, "fg_fraction is 1.5"),
        (WINDOWS % ("fg_threshold: 0.95", ""), DataError, "has no foreground windows, but each batch needs 1"),
        (WINDOWS.replace("crop_size: 6", "") % ("", ""), LayerError, "crop_size is not set"),
        (HDF5.replace("h5.txt", "no.txt") % ("", ""), FileError, 'HDF5 file list "no.txt"'),
        (HDF5.replace("h5.txt", "one.h5") % ("", ""), FileError, "is an HDF5 file itself"),
        (HDF5 % ("", "transform_param { scale: 2 }"), LayerError, "does not transform data"),
        (HDF5.replace('"y"', '"z"') % ("", ""), DataError, r'"one.h5" has no dataset "z" \(it has: x, y\)'),
    ],
)
def test_what_cannot_work_is_refused_at_set_up(text, error, message, place):
    with pytest.raises(error, match=message) as caught:
        layer(text)
    assert str(caught.value).startswith('layer "d" (')
    assert str(caught.value).count('layer "d"') == 1


# -- ImageData ---------------------------------------------------------------------------------------------------------


def test_shuffle_gives_each_pass_its_own_order(place):
    with closing(layer(IMAGES % ("shuffle: true", ""))) as source:
        stream = [label for batch in labels(source, 25) for label in batch]
        passes = [stream[start : start + 5] for start in range(0, 100, 5)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in passes)
    assert len(set(map(tuple, passes))) > 10


def test_the_image_under_a_label_is_its_own(place):
    with closing(layer(IMAGES % ("shuffle: true", ""))) as source:
        for x, y in (source() for _ in range(4)):
            np.testing.assert_array_equal(x.numpy(), images(5, (3, 9, 13))[y.int().numpy()])


def test_lists_may_lack_labels_and_have_blank_lines(place):
    (place / "plain.png").write_bytes((place / "a b3.png").read_bytes())
    (place / "list.txt").write_text("\nplain.png\n\na b1.png\t7 \r\n")
    with closing(layer(IMAGES % ("", ""))) as source:
        assert labels(source, 1) == [[0, 7, 0, 7]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'image list "list.txt" is empty'),
        ("a b0.png 1\na b1.png one\n", 'list.txt:2: "one" is not a label'),
        ("nothing.png 1\n", 'image "nothing.png" cannot be read: No such file'),
        ("list.txt 1\n", 'image "list.txt" cannot be decoded'),
    ],
)
def test_bad_lists_are_refused(text, message, place):
    (place / "list.txt").write_text(text)
    with pytest.raises(CaffeError, match=message):
        layer(IMAGES % ("", ""))


def test_rand_skip_beyond_the_list_is_refused(place):
    with pytest.raises(DataError, match="lower rand_skip"):
        layer(IMAGES % ("rand_skip: 1000000000", ""))


# -- WindowData --------------------------------------------------------------------------------------------------------


def test_each_batch_has_its_share_of_foreground(place):
    with closing(layer(WINDOWS % ("fg_fraction: 0.6", ""))) as source:
        for _, y in (source() for _ in range(6)):
            assert (y > 0).tolist() == [False, False, True, True]


def test_an_overlap_at_a_threshold_counts_from_there_on(place):
    (place / "w.txt").write_text("# 0\na b0.png\n3\n9\n13\n3\n1 0.7 0 0 5 5\n2 0.3 0 0 5 5\n3 0.29 0 0 5 5\n")
    paths, background, foreground = window_module.read_windows("w.txt", "r/", 0.7, 0.3)
    assert paths == ["r/a b0.png"]
    assert foreground.tolist() == [[0, 1, 0, 0, 5, 5]]
    assert background.tolist() == [[0, 0, 0, 0, 5, 5]], "one window, and its label is 0"


def one_window(place, corners, options="", transform="", crop=6) -> np.ndarray:
    """Return the batch of one foreground window in the first image."""
    (place / "w.txt").write_text(f"# 0\na b0.png\n3\n9\n13\n1\n2 1 {corners}\n")
    text = WINDOWS.replace("batch_size: 4", "batch_size: 1").replace("crop_size: 6", f"crop_size: {crop}")
    text %= (f"fg_fraction: 1 {options}", transform)
    with closing(layer(text)) as source:
        return source()[0].numpy()[0]


def test_a_window_of_the_size_of_the_crop_is_copied(place):
    image = images(1, (3, 9, 13))[0].astype(np.float32)
    np.testing.assert_array_equal(one_window(place, "4 2 9 7"), image[:, 2:8, 4:10])
    means = np.array([1, 2, 3], np.float32)[:, None, None]
    got = one_window(place, "4 2 9 7", "scale: 0.5", "mean_value: 1 mean_value: 2 mean_value: 3")
    np.testing.assert_array_equal(got, (image[:, 2:8, 4:10] - means) * 0.5)


def test_context_outside_the_image_is_zero_after_the_mean(place):
    # 4 x 4 about (2, 2) grows by 7 / 5 to -1 ... 5: seven pixels for a crop of seven, one row and column outside
    image = images(1, (3, 9, 13))[0].astype(np.float32)
    mean = images(1, (3, 9, 9), seed=2)[0].astype(np.float32)
    weights.write_mean("mean", mean)
    got = one_window(place, "0 0 3 3", "context_pad: 1", 'mean_file: "mean"', crop=7)
    assert not got[:, 0].any()
    assert not got[:, :, 0].any()
    np.testing.assert_array_equal(got[:, 1:, 1:], image[:, :6, :6] - mean[:, 2:8, 2:8])


def test_mirrored_context_is_on_the_other_side(place):
    image = images(1, (3, 9, 13))[0].astype(np.float32)
    found = set()
    for seed in range(8):
        torch.manual_seed(seed)
        got = one_window(place, "0 2 3 5", "context_pad: 1", "mirror: true", crop=7)
        mirrored = bool(got[:, :, 0].any())
        found.add(mirrored)
        want = np.zeros((3, 7, 7), np.float32)
        want[:, :, 1:] = image[:, 1:8, :6]
        np.testing.assert_array_equal(got, want[:, :, ::-1] if mirrored else want)
    assert found == {False, True}


def test_windows_outside_the_image_are_refused(place):
    with pytest.raises(DataError, match=r"window \(8, 2, 13, 7\) does not lie in image"):
        one_window(place, "8 2 13 7")


def test_cached_images_are_read_once(place, monkeypatch):
    read, paths = window_module.read_image, []
    monkeypatch.setattr(window_module, "read_image", lambda path: paths.append(path) or read(path))
    with closing(layer(WINDOWS % ("cache_images: true", ""))) as source:
        labels(source, 10)
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'window file "w.txt" is empty'),
        ("1\n", 'w.txt:1: expected "# image_index"'),
        ("# 0\na\n3\n9\n13\n2\n1 1 0 0 2 2\n", 'w.txt:1: "# 0" is not followed by'),
        ("# 0\na\n3\n9\n13\n1\n1 1 0 0 two 2\n", 'w.txt:1: "# 0" is not followed by'),
        ("# 0\na\n3\n9\n13\n1\n0 1 0 0 2 2\n", "labels start at 1"),
    ],
)
def test_bad_window_files_are_refused(text, message, place):
    (place / "w.txt").write_text(text)
    with pytest.raises(FileError, match=message):
        layer(WINDOWS % ("", ""))


# -- HDF5Data ----------------------------------------------------------------------------------------------------------


def test_rows_go_on_across_files(place):
    with closing(layer(HDF5 % ("", ""))) as source:
        assert source.shapes == [(4, 3), (4,)]
        assert labels(source, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]]


def test_shuffled_rows_are_all_there_on_every_pass(place):
    torch.manual_seed(3)  # there are 1,440 orders, so two of 20 passes can have the same one
    with closing(layer(HDF5 % ("shuffle: true", ""))) as source:
        batches = [source() for _ in range(40)]
    for x, y in batches:
        np.testing.assert_array_equal(x.numpy(), y.numpy()[:, None] * np.array([1, 10, 100]))
    passes = [[*a[1].int().tolist(), *b[1].int().tolist()] for a, b in zip(batches[::2], batches[1::2], strict=True)]
    assert all(sorted(order) == list(range(8)) for order in passes)
    assert len(set(map(tuple, passes))) == len(passes), "each pass has its own order"
    assert {order[0] < 5 for order in passes} == {True, False}, "files change places"
    assert all(len({label < 5 for label in order[:3]}) == 1 for order in passes), "a file's rows stay together"


def test_files_of_one_length_are_shuffled_each_in_its_own_way(place):
    write_h5(place / "two.h5", 5, 5)
    with closing(layer(HDF5.replace("batch_size: 4", "batch_size: 5") % ("shuffle: true", ""))) as source:
        orders = [[label % 5 for label in batch] for batch in labels(source, 12)]
    assert any(first != second for first, second in zip(orders[::2], orders[1::2], strict=True))


def test_names_on_one_line_and_names_with_spaces(place):
    (place / "two.h5").rename(place / "a file.h5")
    (place / "h5.txt").write_text("one.h5 one.h5\na file.h5\n")
    with closing(layer(HDF5.replace("batch_size: 4", "batch_size: 13") % ("", ""))) as source:
        assert labels(source, 1) == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7]]


def spoil(place, what) -> None:
    with h5py.File(place / "two.h5", "w") as file:
        file["x"] = np.zeros((0, 3)) if what == "no rows" else np.zeros((2, 4 if what == "shape" else 3))
        if what == "text":
            file["y"] = ["a", "b"]
        elif what == "scalar":
            file["y"] = 3.0
        elif what == "group":
            file.create_group("y")
        else:
            file["y"] = np.zeros({"rows": 3, "no rows": 0}.get(what, 2))
    if what == "junk":
        (place / "two.h5").write_bytes(b"junk")
    elif what == "missing":
        (place / "two.h5").unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("junk", 'failed opening HDF5 file "two.h5"'),
        ("missing", 'HDF5 file "two.h5" not found'),
        ("rows", "differ in their number of rows: {'x': 2, 'y': 3}"),
        ("no rows", "have no rows"),
        ("shape", 'two.h5": rows have shapes'),
        ("text", 'dataset "y" holds object'),
        ("scalar", 'dataset "y" is a single number'),
        ("group", 'has no dataset "y"'),
    ],
)
def test_bad_hdf5_files_are_refused_when_their_turn_comes(what, message, place):
    spoil(place, what)
    with closing(layer(HDF5 % ("", ""))) as source:
        assert labels(source, 1) == [[0, 1, 2, 3]]
        with pytest.raises(CaffeError, match=message):
            source()
    (place / "h5.txt").write_text("two.h5 one.h5")
    with pytest.raises(CaffeError, match='"one.h5": rows have' if what == "shape" else message):
        layer(HDF5 % ("", "")) if what != "shape" else labels(layer(HDF5 % ("", "")), 2)


def test_an_empty_list_is_refused(place):
    (place / "h5.txt").write_text("\n")
    with pytest.raises(FileError, match=r'HDF5 file list "h5.txt" is empty'):
        layer(HDF5 % ("", ""))


def test_positions_are_small_json(place):
    with closing(layer(RANDOM["Data"])) as source:
        source()
        assert json.loads(source.position()) == {
            "seed": source.state["seed"],
            "batch": 1,
            "key": b"00000004".hex(),
            "skipped": 0,
        }
