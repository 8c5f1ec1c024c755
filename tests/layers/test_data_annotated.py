"""AnnotatedData: batches, positions, errors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.data import create_database
from caffe.data.databases import annotated
from caffe.data.databases.annotated import AnnotatedReader, annotated_record, encode_boxes
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2
from caffe.proto.caffe_pb2 import AnnotatedDatum, Datum
from tests.data.helpers import images, layer, write_lmdb

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
TEXT = (
    'name: "d" type: "AnnotatedData" top: "x" top: "y" data_param {{ source: "db" batch_size: {} backend: {} }} '
    "annotated_data_param {{ {} }} transform_param {{ {} }}"
)
AUGMENTED = (
    "batch_sampler { max_sample: 1 max_trials: 1 } batch_sampler { sampler { min_scale: 0.3 } max_sample: 1 }",
    "resize_param { height: 8 width: 9 interp_mode: [LINEAR, AREA] } mirror: true expand_param { max_expand_ratio: 2 } "
    "distort_param { brightness_prob: 1 brightness_delta: 30 } crop_size: 7",
)


def text(batch=2, backend="LMDB", options="", transform=""):
    return TEXT.format(batch, backend, options, transform)


def boxes_of(index):
    """Return the boxes of record `index`: as many as its index, with labels in descending order."""
    return [(5 - k % 2, k, 0.1 * k, 0.2, 0.1 * k + 0.3, 0.9, k % 2) for k in range(index)]


def write(path, count=4, backend="lmdb", typed=True):
    with create_database(backend, path) as writer:
        for index, image in enumerate(images(count, (3, 10, 12))):
            if index % 2:
                pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
                datum = Datum(data=cv2.imencode(".png", pixels)[1].tobytes(), encoded=True, label=index)
            else:
                datum = Datum(channels=3, height=10, width=12, data=image.tobytes(), label=index)
            value = encode_boxes(datum, boxes_of(index)) if typed else AnnotatedDatum(datum=datum).SerializeToString()
            writer.put(b"%04d" % index, value)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_rows_are_grouped_by_label_and_name_their_image(backend):
    write("db", backend=backend.lower())
    made = layer(text(backend=backend), TEST)
    assert made.shapes == [(2, 3, 10, 12), (1, 1, 1, 8)]
    x, y = made()
    np.testing.assert_array_equal(x.numpy(), images(4, (3, 10, 12))[:2])
    np.testing.assert_allclose(y[0, 0].numpy(), [[1, 5, 0, 0, 0.2, 0.3, 0.9, 0]], rtol=1e-6)
    x, y = made()
    np.testing.assert_array_equal(x.numpy(), images(4, (3, 10, 12))[2:])
    assert y[0, 0, :, :3].int().tolist() == [[0, 5, 0], [0, 4, 1], [1, 5, 0], [1, 5, 2], [1, 4, 1]]
    assert y[0, 0, :, 7].int().tolist() == [0, 1, 0, 0, 1]
    made.close()


def test_a_batch_without_boxes_and_a_layer_without_labels():
    write("db", 1)
    assert layer(text(1), TEST)()[1].tolist() == [[[[-1] * 8]]]
    alone = layer(text(1).replace('top: "y"', ""), TEST)
    assert len(alone()) == 1


def test_augmentation_is_repeatable_and_independent_of_threads():
    write("db", 6)
    found = []
    for workers in (1, 1, 3):
        caffe.set_random_seed(3)
        spec = text(4, "LMDB", *AUGMENTED).replace("batch_size", f"workers: {workers} batch_size")
        made = layer(spec, TRAIN)
        runs = [[value.numpy() for value in made()] for _ in range(5)]
        position = made.position()
        after = [value.numpy() for value in made()]
        made.seek(position)
        for one, other in zip(after, made(), strict=True):
            np.testing.assert_array_equal(one, other.numpy())
        made.close()
        found.append([value for run in runs for value in run])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)
    assert len({x.tobytes() for x in found[0][::2]}) == 5


def test_records_without_a_type_give_numbers_unless_anno_type_says_boxes():
    write("db", typed=False)
    assert layer(text(), TEST)()[1].tolist() == [0, 1]
    assert layer(text(options="anno_type: BBOX"), TEST)()[1].tolist() == [[[[-1] * 8]]]
    with pytest.raises(CaffeError, match="write anno_type: BBOX"):
        layer(text(options=AUGMENTED[0]), TEST)


def test_boxes_of_another_count_reshape_what_follows():
    write("db")
    spec = f'layer {{ {text()} }} layer {{ name: "r" type: "Reduction" bottom: "y" top: "s" }}' + (
        'layer { name: "p" type: "Power" bottom: "y" top: "p" }'
    )
    for optimize in (False, True):
        net = caffe.Net(text_format.Parse(spec, caffe_pb2.NetParameter()), TEST)
        if optimize:
            net.optimize()
        counts = []
        for _ in range(3):
            net.forward()
            counts.append(net.blobs["p"].data.shape[2])
        assert counts == [1, 5, 1]
        net.close()


def test_several_sizes_change_from_batch_to_batch():
    write("db")
    one = "resize_param {{ height: {0} width: {1} interp_mode: NEAREST prob: {2} }} "
    more = [one.format(*size).replace("resize", "more_resize") for size in ((20, 24, 0.3), (5, 6, 0), (30, 36, 0.2))]
    sizes = one.format(10, 12, 0.5) + " ".join(more)
    made, again = (layer(text(transform=sizes), TRAIN) for _ in range(2))
    again.state = made.state
    assert made.shapes[0] == (2, 3, 10, 12)
    seen = set()
    for _ in range(12):
        x, y = made()
        seen.add(tuple(x.shape))
        np.testing.assert_array_equal(x, again()[0])
        assert y.shape[3] == 8
    assert seen == {(2, 3, 10, 12), (2, 3, 20, 24), (2, 3, 30, 36)}
    for end, says in (
        ("prob: 0 }", "one above 0"),
        ("height_scale: 9 width_scale: 9 }", "do not go with height_scale"),
    ):
        mode = "resize_mode: FIT_SMALL_SIZE height: 8 width: 8"
        bad = f"resize_param {{ {mode} prob: 0 }} more_resize_param {{ {mode} {end}"
        with pytest.raises(CaffeError, match=says):
            layer(text(transform=bad), TRAIN)


def test_data_has_the_steps_of_single_images(place):
    write_lmdb(place / "db", images(3, (3, 10, 12)))
    spec = 'name: "d" type: "Data" top: "x" top: "y" data_param { source: "db" batch_size: 2 backend: LMDB } ' + (
        "transform_param { resize_param { height: 20 width: 24 interp_mode: NEAREST } crop_h: 20 crop_w: 24 }"
    )
    x, y = layer(spec, TEST)()
    np.testing.assert_array_equal(x.numpy(), images(3, (3, 10, 12))[:2].repeat(2, 2).repeat(2, 3))
    assert y.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "transform", "says"),
    [
        ("single_class: true", "", "single_class belongs to MobileNet-YOLO"),
        ("", "mixup: 0.3 label_count: 5", "mixup needs class labels"),
        ("", "rotation: 5", "moves objects away"),
        ("", "crop_size: 11", "smaller than crop_size 11"),
        ("batch_sampler { sampler { max_scale: 2 } }", "", "scales of 1 ... 2"),
        ("", "force_gray: true", "raw with 3 channels"),
    ],
)
def test_mistakes(options, transform, says):
    write("db")
    with pytest.raises(CaffeError, match=says) as caught:
        layer(text(options=options, transform=transform), TRAIN)
    assert '"d" (AnnotatedData)' in str(caught.value)


def test_records_that_are_not_annotated(place):
    write_lmdb(place / "db", images(2, (3, 10, 12)))
    with pytest.raises(CaffeError, match="convert_annoset"):
        layer(text(options="anno_type: BBOX"), TEST)


@pytest.mark.parametrize(
    "damage", [lambda v: v[:40], lambda v: v[:1], lambda v: b"\x0a\xff\xff\xff\xff\xff\xff", lambda v: v + b"\x07"]
)
def test_damaged_records_are_named(damage):
    value = encode_boxes(Datum(channels=1, height=8, width=9, data=bytes(72)), boxes_of(2))
    with pytest.raises(CaffeError, match="is not an AnnotatedDatum"):
        AnnotatedReader()(damage(value))


def test_a_record_with_its_fields_in_another_order_is_read():
    value = encode_boxes(Datum(channels=1, height=8, width=9, data=bytes(range(72))), boxes_of(3))
    record = AnnotatedDatum.FromString(value)
    swapped = AnnotatedDatum(type=record.type, annotation_group=record.annotation_group).SerializeToString()
    swapped += AnnotatedDatum(datum=record.datum).SerializeToString()
    for one, other in zip(AnnotatedReader()(value), AnnotatedReader()(swapped), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(annotated_record(swapped)[1]) == 3


def test_a_record_is_parsed_once(monkeypatch):
    """The bytes before the pixels tell whether a raw image needs a thread. The boxes are not parsed for this."""
    datum = caffe_pb2.Datum(channels=1, height=2, width=3, data=bytes(range(6)))
    record = annotated.encode_boxes(datum, [[1, 0, 0.1, 0.2, 0.3, 0.4, 0]])
    read, parsed = annotated.AnnotatedReader(), []
    assert not read.knows(record)
    assert read(record)[0].ravel().tolist() == list(range(6))
    monkeypatch.setattr(annotated, "_parted", lambda value: parsed.append(value))
    assert read.knows(record)
    assert not any(read.knows(wrong) for wrong in (record[:9], b"", b"\x0a", b"\x0a\xff\xff"))
    assert not parsed
