"""The commands that were Python scripts: classify, detect, draw, parse_log, plot_training_log, summarize."""

from __future__ import annotations

import csv
import itertools
import re
import subprocess
import sys

import cv2
import h5py
import numpy as np
import pytest

import caffe
from caffe import draw, train_log
from caffe.cli import main
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2, text
from tests.conftest import ROOT, shared
from tests.replay import assert_close, write_files

LENET = str(ROOT / "examples/mnist/lenet_train_test.prototxt")


@pytest.fixture
def case(tmp_path, monkeypatch):
    models = np.load(shared("golden", "pycaffe", "models.npz"))
    write_files(models, tmp_path)
    (tmp_path / "deploy.prototxt").write_text(str(models["prototxt"]))
    monkeypatch.chdir(tmp_path)
    return models


MODEL = ["-model_def", "deploy.prototxt", "-pretrained_model", "w.caffemodel", "--input_scale", "0.02"]


def test_classify(case, tmp_path, capsys):
    np.save("mean.npy", [100.0, 110.0, 120.0])
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    flags = [*MODEL, "--mean_file", "mean.npy", "--images_dim", ",".join(map(str, case["classifier/image_dims"]))]
    images = np.stack([case["image0"], case["image0"][::-1]])
    np.save("images.npy", images)
    assert main(["classify", "images.npy", "out.npy", *flags, "--labels", "names.txt"]) == 0
    assert_close(np.load("out.npy")[0], case["classifier/oversample"][0], "oversample", rtol=1e-5)
    assert capsys.readouterr().out.count("\n") == 2 * 6 + 1
    assert main(["classify", "images.npy", "out.npy", *flags, "--center_only"]) == 0
    assert_close(np.load("out.npy")[0], case["classifier/center"][0], "center", rtol=1e-5)
    assert main(["classify", "image.png", *flags]) == 0
    assert main(["classify", ".", "out.npy", *flags, "--ext", "png"]) == 0
    assert np.load("out.npy").shape == (1, 5)


def test_classify_tells_what_is_missing(case, capsys):
    assert main(["classify", "image.png"]) == 1
    assert "-model_def" in capsys.readouterr().err
    assert main(["classify", ".", *MODEL]) == 1
    assert "no images *.jpg" in capsys.readouterr().err
    assert main(["classify", "image.png", *MODEL, "--channel_swap", "a"]) == 1
    assert "whole numbers" in capsys.readouterr().err


@pytest.fixture
def grey(tmp_path, monkeypatch):
    """Return a net with one channel, its weights, an image and its pixels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grey.prototxt").write_text("""
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 6 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
      inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 1 } } }
    layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }""")
    caffe.Net("grey.prototxt", caffe.TEST).save("grey.caffemodel")
    pixels = np.random.default_rng(1).integers(0, 256, (8, 6)).astype(np.uint8)
    cv2.imwrite("grey.png", pixels)
    return pixels


GREY = ["-model_def", "grey.prototxt", "-pretrained_model", "grey.caffemodel", "-raw_scale", "1", "-images_dim", "8,6"]


def test_a_net_of_one_channel_takes_grey_images(grey, tmp_path, capsys):
    net = caffe.Net("grey.prototxt", "grey.caffemodel", caffe.TEST)
    expected = net.forward_all(data=(grey / np.float32(255))[None, None])["prob"]
    assert main(["classify", "grey.png", "a.npy", *GREY, "-center_only"]) == 0
    np.testing.assert_allclose(np.load("a.npy"), expected, rtol=1e-5)
    np.save("images.npy", grey[None] / np.float32(255))
    assert main(["classify", "images.npy", "b.npy", *GREY, "-center_only"]) == 0
    np.testing.assert_allclose(np.load("b.npy"), expected, rtol=1e-5)
    (tmp_path / "windows.csv").write_text("filename,ymin,xmin,ymax,xmax\ngrey.png,0,0,8,6\n")
    flags = [*GREY[:6], "-crop_mode", "list", "-context_pad", "0"]
    assert main(["detect", "windows.csv", "out.h5", *flags]) == 0
    with h5py.File("out.h5") as file:
        np.testing.assert_allclose(file["prediction"][...], expected, rtol=1e-5)
    assert main(["classify", "grey.png", *GREY, "-channel_swap", "2,1,0"]) == 1
    assert "set_channel_swap" in capsys.readouterr().err


def test_images_of_two_axes(grey, case):
    classifier = caffe.Classifier("grey.prototxt", "grey.caffemodel")
    plain = grey / np.float32(255)
    np.testing.assert_array_equal(classifier.predict([plain]), classifier.predict([plain[..., None]]))
    with pytest.raises(CaffeError, match=r"image 1 has shape \(8, 6, 3\); expected \(H, W, 1\).*color=False"):
        classifier.predict([plain, np.stack([plain] * 3, -1)])
    colour = caffe.Classifier("deploy.prototxt", "w.caffemodel")
    with pytest.raises(CaffeError, match=r"image 0 has shape \(8, 6\); expected \(H, W, 3\).*color=True"):
        colour.predict([plain])
    with pytest.raises(CaffeError, match="image_dims is"):
        caffe.Classifier("grey.prototxt", "grey.caffemodel", image_dims=[32])


@pytest.mark.parametrize(
    ("arguments", "flags", "part"),
    [
        (["grey.png"], ["-images_dim", "32"], '-images_dim "32": expected a height and a width'),
        (["grey.png"], ["-images_dim", "0,6"], '-images_dim "0,6": expected'),
        (["grey.png"], ["-images_dim", "8,5"], "images are brought to 8 x 5 pixels, the net takes 8 x 6"),
        (["grey.png"], ["-images_dim", "8,5", "-center_only"], "images are brought to 8 x 5 pixels"),
        (["grey.png"], ["-labels", "names.txt"], "names.txt: contains 3 names, but the net has 4 classes"),
        (["grey.png"], ["-labels", "no.txt"], "cannot read the labels no.txt: No such file"),
        (["grey.png", "s.txt"], [], "s.txt: the scores are written as an array"),
    ],
)
def test_wrong_settings_of_classify_are_one_error(grey, tmp_path, capsys, arguments, flags, part):
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    assert main(["classify", *arguments, *GREY, *flags]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    error = err.partition("caffe: error: ")[2]
    assert part in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "s.txt").exists()


def test_detect(case, tmp_path):
    windows = case["detector/windows"]
    lines = ["filename,ymin,xmin,ymax,xmax", *("image.png," + ",".join(map(str, row)) for row in windows)]
    (tmp_path / "windows.csv").write_text("\n".join(lines))
    mean = np.broadcast_to(np.array([100.0, 110.0, 120.0])[:, None, None], (3, 6, 5))
    np.save("mean.npy", mean)
    flags = [*MODEL, "--mean_file", "mean.npy", "--crop_mode", "list", "--context_pad", "0"]
    assert main(["detect", "windows.csv", "out.csv", *flags]) == 0
    with open("out.csv") as file:
        rows = list(csv.DictReader(file))
    scores = np.array([[float(row[f"class{index}"]) for index in range(5)] for row in rows])
    assert_close(scores, case["detector/pad_0"], "scores", rtol=1e-5)
    assert [float(row["xmax"]) for row in rows] == windows[:, 3].tolist()
    assert main(["detect", "windows.csv", "out.h5", *flags]) == 0
    with h5py.File("out.h5") as h5:
        assert_close(h5["prediction"][...], case["detector/pad_0"], "scores", rtol=1e-5)
        assert h5["filename"].asstr()[0] == "image.png"


def test_detect_tells_what_is_missing(case, capsys):
    assert main(["detect", "image.png", "out.txt", *MODEL]) == 1
    assert ".csv or .h5" in capsys.readouterr().err
    with open("list.csv", "w") as file:
        file.write("filename,ymin\nimage.png,3\n")
    assert main(["detect", "list.csv", "out.csv", *MODEL, "--crop_mode", "list"]) == 1
    assert "columns filename, ymin" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["lenet.svg", "lenet.png", "lenet.pdf", "lenet.dot"])
def test_draw(tmp_path, name):
    target = tmp_path / name
    assert main(["draw", LENET, str(target), "--rankdir", "TB", "--phase", "TRAIN", "--display_lrm"]) == 0
    data = target.read_bytes()
    assert len(data) > 1000
    if name.endswith("png"):
        image = cv2.imread(str(target))
        assert min(image.shape[:2]) > 400
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    if name.endswith("dot"):
        assert '"conv1 (Convolution) kernel size: 5 stride: 1 pad: 0 lr mult: 1, 2"' in data.decode()
        assert "Accuracy" not in data.decode()


BOTH = """
layer { name: "in1" type: "Data" top: "x" include { phase: TRAIN } data_param { source: "no" } }
layer { name: "in2" type: "Data" top: "x" include { phase: TEST } data_param { source: "no" } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 3 } }
"""


@pytest.mark.parametrize(
    ("flags", "drawn", "said"),
    [
        ([], ["in1", "ip"], " (phase TRAIN)"),
        (["-phase", "TEST"], ["in2", "ip"], " (phase TEST)"),
        (["-phase", "ALL"], ["in1", "in2", "ip"], ""),
    ],
)
def test_a_net_of_two_phases_is_drawn_in_one(tmp_path, capsys, flags, drawn, said):
    (tmp_path / "net.prototxt").write_text(BOTH)
    target = str(tmp_path / "a.dot")
    assert main(["draw", str(tmp_path / "net.prototxt"), target, *flags]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (f"wrote {target}{said}\n", "")
    assert re.findall(r": (\w+) \(\w+\)\" \[", (tmp_path / "a.dot").read_text()) == drawn


def test_every_maker_of_a_blob_has_its_arrow():
    net = text.parse(BOTH, caffe_pb2.NetParameter())
    assert boxes_and_arrows(net) == ([["in1"], ["in2"], ["ip"]], [(0, 2), (1, 2)])


def chain(count):
    blocks = ['layer { name: "i" type: "Input" top: "b0" input_param { shape { dim: 2 dim: 5 } } }']
    options = "inner_product_param { num_output: 7 }"
    for i in range(count):
        blocks.append(f'layer {{ name: "ip{i}" type: "InnerProduct" bottom: "b{i}" top: "b{i + 1}" {options} }}')
    return "\n".join(blocks)


@pytest.mark.parametrize(("count", "flags", "wide"), [(8, [], 1), (60, [], 0), (60, ["-rankdir", "LR"], 1)])
def test_a_picture_that_would_be_too_wide_runs_down(tmp_path, count, flags, wide):
    (tmp_path / "net.prototxt").write_text(chain(count))
    assert main(["draw", str(tmp_path / "net.prototxt"), str(tmp_path / "a.png"), *flags]) == 0
    height, width = cv2.imread(str(tmp_path / "a.png")).shape[:2]
    assert (width > height) == wide


def test_shapes_are_shown_where_they_are_known(tmp_path, capsys):
    (tmp_path / "net.prototxt").write_text(chain(2))
    for name in ("a.svg", "a.dot"):
        assert main(["draw", str(tmp_path / "net.prototxt"), str(tmp_path / name)]) == 0
    assert 'label="b2\\n2 x 7"' in (tmp_path / "a.dot").read_text()
    assert "[2 x 7]" in (tmp_path / "a.svg").read_text()
    assert capsys.readouterr().err == ""


def test_draw_tells_what_is_wrong(tmp_path, capsys):
    assert main(["draw", LENET, str(tmp_path / "a.pngg")]) == 1
    assert 'did you mean "png"' in capsys.readouterr().err
    assert main(["draw", LENET, str(tmp_path / "a.png"), "--rankdir", "XX"]) == 1
    assert "rankdir" in capsys.readouterr().err
    assert main(["draw", LENET, str(tmp_path / "a.png"), "--phase", "TRIAN"]) == 1
    assert 'did you mean "TRAIN"' in capsys.readouterr().err


def test_draw_imports_no_torch(tmp_path):
    code = f"""
import sys
from caffe import draw
from caffe.proto import upgrade
draw.draw_net_to_file(upgrade.read_net({LENET!r}), "a.svg")
sys.exit("torch" in sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_labels_of_layers_and_edges():
    layer = text.parse(
        'name: "c" type: "Convolution" param { lr_mult: 3 } '
        "convolution_param { num_output: 7 kernel_h: 3 kernel_w: 5 stride: 2 }",
        caffe_pb2.LayerParameter(),
    )
    assert draw.get_layer_label(layer, "LR") == "c\n(Convolution)\nkernel size: 3x5\nstride: 2\npad: 0"
    assert draw.get_layer_label(layer, "TB", True).endswith("pad: 0 lr mult: 3, 1")
    assert draw.get_edge_label(layer) == "7"
    assert draw.choose_color_by_layertype("Pooling") != draw.choose_color_by_layertype("Convolution")
    pool = text.parse(
        'name: "p" type: "Pooling" pooling_param { global_pooling: true pool: AVE }', caffe_pb2.LayerParameter()
    )
    assert draw.get_layer_label(pool, "TB") == "p (AVE Pooling) global"
    with pytest.raises(CaffeError, match="rankdir"):
        draw.get_pydot_graph(caffe_pb2.NetParameter(), "UP")


def boxes_and_arrows(net):
    from caffe.pictures import net_graph as _netgraph

    boxes, edges = _netgraph._boxes(net.layer, False, {})
    return [[line.split()[0] for line in box.lines] for box in boxes], edges


def test_layers_in_place_share_a_box():
    n = caffe.NetSpec()
    L = caffe.net_spec.layers  # noqa: N806
    n.x = L.Input(shape={"dim": [1, 2]})
    n.a = L.InnerProduct(n.x, num_output=3)
    n.r = L.ReLU(n.a, in_place=True)
    n.b = L.InnerProduct(n.r, num_output=3)
    n.s = L.Eltwise(n.b, n.r)
    assert boxes_and_arrows(n.to_proto()) == ([["x"], ["a", "r"], ["b"], ["s"]], [(0, 1), (1, 2), (2, 3), (1, 3)])


def test_boxes_of_a_rank_do_not_overlap():
    from caffe.pictures.layout import Node, place

    rng = np.random.default_rng(1)
    nodes = [Node(10.0, float(rng.integers(5, 60))) for _ in range(40)]
    edges = sorted({tuple(sorted(rng.choice(40, 2, replace=False).tolist())) for _ in range(70)})
    paths = place(nodes, edges, 7.0, 4.0)
    assert [(path[0], path[-1]) for path in paths] == [(nodes[a], nodes[b]) for a, b in edges]
    for a, b in edges:
        assert nodes[a].at < nodes[b].at
    everything = {id(node): node for path in paths for node in path} | {id(node): node for node in nodes}
    for rank in {node.rank for node in everything.values()}:
        row = sorted((node for node in everything.values() if node.rank == rank), key=lambda node: node.x)
        for one, other in itertools.pairwise(row):
            assert other.x - one.x >= (one.across + other.across) / 2 + 4 - 1e-6


def test_parse_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["parse_log", str(shared("golden", "logs", "train.log"))]) == 0
    with open("train.log.train") as file:
        train = list(csv.DictReader(file))
    with open("train.log.test") as file:
        test = list(csv.DictReader(file))
    assert list(train[0]) == ["NumIters", "Seconds", "LearningRate", "loss"]
    assert [row["NumIters"] for row in train] == [str(n) for n in range(0, 40, 5)]
    assert [row["LearningRate"] for row in train[:3]] == ["0.004", "0.004", "0.00385628"]
    assert [row["NumIters"] for row in test] == ["0", "10", "20", "30", "40"]
    assert float(test[-1]["loss"]) == 1.45755
    assert float(train[0]["Seconds"]) < float(train[-1]["Seconds"]) < 1
    assert main(["parse_log", str(shared("golden", "logs", "train.log")), "nowhere"]) == 1


def stamped(time, message):
    return f"I{time}.000000 12345 solver.cpp:228] {message}\n"


def test_a_log_of_two_test_nets_has_a_row_for_each(tmp_path):
    text = shared("golden", "logs", "train_two_tests.log").read_text()
    (tmp_path / "two.log").write_text(text)
    tables = train_log.read(tmp_path / "two.log")
    assert [(row["NumIters"], row["accuracy"]) for row in tables.test] == [
        (0, 0.25), (0, 0.3), (3, 0.2), (3, 0.3), (6, 0.15), (6, 0.0)
    ]  # fmt: skip
    assert tables.nets == [0, 1] * 3
    assert all(row["LearningRate"] == row["LearningRate"] for row in tables.test)
    assert main(["plot_training_log", "0", str(tmp_path / "chart.png"), str(tmp_path / "two.log")]) == 0


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (("1231 23:59:50", "0101 00:00:10", "0102 00:00:10"), [20, 86420]),
        (("20251231 23:59:50", "20260101 00:00:10", "20260102 00:00:10"), [20, 86420]),
        (("1231 23:59:50", "0229 00:00:10", "0301 00:00:10"), [59 * 86400 + 20, 60 * 86400 + 20]),
        (("0228 23:59:50", "0301 00:00:10", "0301 00:00:20"), [20, 30]),
        (("0228 23:59:50", "0229 00:00:10", "0301 00:00:10"), [20, 86420]),
    ],
)
def test_seconds_of_a_run_over_the_end_of_a_month(tmp_path, times, seconds):
    messages = ["Solving n\n", "Iteration 0, loss = 1", "Iteration 5, loss = 1"]
    outputs = ["", "Train net output #0: loss = 1", "Train net output #0: loss = 0.5"]
    lines = [stamped(*pair) for entry in zip(times, messages, outputs, strict=True) for pair in zip(
        entry[:1] * 2, entry[1:], strict=True)]  # fmt: skip
    (tmp_path / "a.log").write_text("".join(lines))
    assert [row["Seconds"] for row in train_log.read(tmp_path / "a.log").train] == seconds


def test_a_log_without_its_beginning_is_read(tmp_path):
    text = shared("golden", "logs", "train.log").read_text()
    (tmp_path / "cut.log").write_text("".join(text.partition("Iteration 10, Testing")[1:]))
    tables = train_log.read(tmp_path / "cut.log")
    assert [row["NumIters"] for row in tables.train] == list(range(10, 40, 5))
    assert tables.train[0]["Seconds"] >= 0
    (tmp_path / "bare.log").write_text("Iteration 7, loss = 2\n  Train net output #0: loss = 2\n")
    (row,) = train_log.read(tmp_path / "bare.log").train
    assert (row["NumIters"], row["loss"]) == (7, 2)
    assert row["Seconds"] != row["Seconds"]


@pytest.mark.parametrize("number", range(len(train_log.CHARTS)))
def test_plot_training_log(tmp_path, number):
    log = str(shared("golden", "logs", "train.log"))
    assert main(["plot_training_log", str(number), str(tmp_path / "chart.png"), log]) == 0
    assert cv2.imread(str(tmp_path / "chart.png")).std() > 5


def test_plot_training_log_tells_the_types(tmp_path, capsys):
    assert main(["plot_training_log", "9", str(tmp_path / "a.png"), "x.log"]) == 1
    assert "7 Train loss vs. Seconds" in capsys.readouterr().err
    (tmp_path / "empty.log").write_text("nothing\n")
    assert main(["plot_training_log", "0", str(tmp_path / "a.png"), str(tmp_path / "empty.log")]) == 1
    assert "holds no outputs" in capsys.readouterr().err


def test_summarize(capsys):
    assert main(["summarize", LENET]) == 0
    lines = capsys.readouterr().out.splitlines()
    words = " ".join(lines[2].split())
    assert words == "conv1 Convolution data -> conv1 num_output 20, kernel_size 5, stride 1, lr_mult 1 2"
    assert lines[7].split() == ["relu1", "ReLU", "ip1"]
    assert lines[0].endswith("phase: TRAIN")
