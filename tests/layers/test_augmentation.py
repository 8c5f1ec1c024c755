"""FlowNet's augmentation, with results computed by hand: positions, colours, means, and random coefficients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from caffe.errors import LayerError
from caffe.layers.augmentation.coefficients import NAMES
from caffe.layers.base import as_tuple
from caffe.layers.support.effects import Effects
from caffe.net import Net
from caffe.proto import caffe_pb2, text
from caffe.proto.caffe_pb2 import TEST, TRAIN
from tests.layers.build import apply, assert_rejected, build

RAMP = torch.arange(24.0, dtype=torch.float64).view(1, 1, 4, 6)
AXES = "chromatic_eigvec: [1, 0, 0, 0, 1, 0, 0, 0, 1]"


def coefficients(count: int = 1, **given: float) -> Tensor:
    """Return stored coefficients. Multiplicative coefficients are stored as logarithms."""
    blob = torch.zeros(count, 42, 1, 1, dtype=torch.float64)
    for name, value in given.items():
        blob[:, NAMES.index(name)] = value
    return blob


def augment(x: Tensor, options: str, *blob: Tensor, phase: int = TEST) -> Tensor:
    return apply("DataAugmentation", f"augmentation_param {{ {options} }}", x, *blob, phase=phase)


def test_the_order_of_a_blob():
    assert len(NAMES) == 42
    assert [NAMES.index(name) for name in ("zoom_y", "gamma", "color3", "pow_nomean0", "mult_withmean2")] == [
        *(5, 6, 11, 12, 29)
    ]
    assert NAMES[30:36] == ("lmult_pow", "lmult_add", "lmult_mult", "col_angle", "fog_amount", "fog_size")


def test_test_crops_the_centre():
    assert torch.equal(augment(RAMP, "crop_height: 2 crop_width: 4"), RAMP[:, :, 1:3, 1:5])
    assert augment(RAMP, "crop_height: 2 crop_width: 3")[0, 0, 0].tolist() == [7.5, 8.5, 9.5]
    whole = augment(RAMP, "crop_height: 4 crop_width: 6 translate { mean: 1 }")  # the last cells are interpolated
    assert whole[0, 0, 0].tolist() == pytest.approx([0, 1, 2, 3, 4, 4.95])
    assert whole[0, 0, 3].tolist() == pytest.approx([17.7, 18.7, 19.7, 20.7, 21.7, 22.65])


def test_without_a_crop_only_the_mean_is_subtracted():
    x = torch.ones(1, 3, 2, 2, dtype=torch.float64)
    y = augment(x, "mean: [0.25, 0.5, 1] mean_per_pixel: false")
    assert y[0, :, 1, 1].tolist() == [0.75, 0.5, 0]
    assert torch.equal(augment(x, "mean: [0.25, 0.5, 1]"), x)  # mean_per_pixel is the default, as in the source


def test_given_coefficients_move_the_crop():
    crop = "crop_height: 2 crop_width: 4"
    mirrored = augment(RAMP, crop, coefficients(mirror=1))[0, 0, 0]
    np.testing.assert_allclose(mirrored, [10.95, 10, 9, 8])  # columns 5 to 2, one beyond the crop, as in the source
    corner = augment(RAMP, crop, coefficients(dx=0.25, dy=0.5))[0, 0]
    np.testing.assert_allclose(corner, [[14, 15, 16, 16.95], [19.7, 20.7, 21.7, 22.65]])
    half = augment(RAMP, crop, coefficients(zoom_x=math.log(2), zoom_y=0.0005))  # less than 0.001 counts as neutral
    assert half[0, 0, 0].tolist() == pytest.approx([8, 8.5, 9, 9.5])
    quarter = augment(RAMP, "crop_height: 2 crop_width: 2", coefficients(angle=math.pi / 2))
    # (x, y) from the centre goes to (-y, x): columns 4 and 3, rows 1 and 2
    assert quarter[0, 0].flatten().tolist() == pytest.approx([10, 16, 9, 15])


def test_colours_by_hand():
    x = torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64).view(1, 3, 1, 1).expand(-1, -1, 3, 3).contiguous()
    options = "crop_height: 1 crop_width: 1 max_multiplier: 1"

    def colour(**given: float) -> list[float]:
        return augment(x, f"{options} {AXES}", coefficients(**given)).flatten().tolist()

    light = 1.2 / 1.21  # the sum of the colours before and after, with 0.01 against division by 0
    assert colour(gamma=math.log(2)) == pytest.approx([(value * light) ** 2 for value in (0.2, 0.4, 0.6)])
    assert colour(brightness=0.1) == pytest.approx([0.2 * light + 0.1, 0.4 * light + 0.1, 0.6 * light + 0.1])
    assert colour(contrast=math.log(2)) == pytest.approx([0, 2 * 0.4 * light - 0.5, 2 * 0.6 * light - 0.5])
    light = 1.2 / (0.4 + 0.4 + 0.6 + 0.01)
    assert colour(color1=math.log(2)) == pytest.approx([0.4 * light, 0.4 * light, 0.6 * light])
    assert colour(lmult_mult=math.log(0.5)) == pytest.approx([0.1, 0.2, 0.3])
    # the unit of each axis is the largest value, so (g, b) is (1, 1) and its quarter turn (-1, 1)
    assert colour(col_angle=math.pi / 2) == pytest.approx([0.2, 0, 0.6])
    assert colour(shadow_strength=0.25, shadow_distance=-1) == pytest.approx([0, 0.15, 0.35])
    assert colour(noise=0.0005) == [0.2, 0.4, 0.6]


def turned_by_loops(x: np.ndarray, by: dict[str, float], rows: np.ndarray) -> np.ndarray:
    """Compute the colours of an image (3, H, W) after the changes along three axes, pixel by pixel."""
    cells = x.reshape(3, -1).T
    mean, largest = cells.mean(0), np.abs(cells @ rows.T).max(0)
    longest, made = np.linalg.norm(largest), []

    def stretch(value: float, which: str) -> float:
        power = math.copysign(abs(value) ** by[f"pow_{which}"], value)
        return (power + by[f"add_{which}"]) * by[f"mult_{which}"]

    for cell in cells:
        axes = [
            stretch(v / m, f"nomean{i}") for i, (v, m) in enumerate(zip(rows @ (cell - mean), largest, strict=True))
        ]
        light, red, blue = (axis + v / m for axis, v, m in zip(axes, rows @ mean, largest, strict=True))
        chroma = math.hypot(red, blue)
        wanted = max(chroma ** by["pow_withmean1"] + by["add_withmean1"], 0) * by["mult_withmean1"]
        turn = complex(red, blue) * np.exp(1j * by["col_angle"])
        axes = np.array([stretch(light, "withmean0"), turn.real, turn.imag]) * largest
        share = np.linalg.norm(axes) / longest
        axes[1:] *= wanted / chroma
        goal = max(share ** by["lmult_pow"] + by["lmult_add"], 0) * by["lmult_mult"] * longest
        made.append(np.clip(np.minimum(axes / np.linalg.norm(axes) * goal, largest) @ rows, 0, 1))
    return np.array(made).T.reshape(x.shape)


def test_changes_along_the_axes_of_colour_by_loops():
    rng = np.random.default_rng(3)
    x, rows = rng.uniform(0.1, 0.9, (3, 4, 5)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    blob = torch.zeros(1, 42, 1, 1, dtype=torch.float64)
    blob[0, 12:34, 0, 0] = torch.from_numpy(rng.uniform(-0.2, 0.2, 22))
    options = f"max_multiplier: 1 chromatic_eigvec: {[float(np.float32(v)) for v in rows.ravel()]}"
    y = augment(torch.from_numpy(x[None]), f"crop_height: 4 crop_width: 5 {options}", blob)
    by = {name: float(value) for name, value in zip(NAMES[12:34], blob[0, 12:34].flatten(), strict=True)}
    neutral = [name for name in by if not name.startswith(("add", "lmult_add", "col_angle"))]
    by.update({name: math.exp(by[name]) for name in neutral})
    expected = turned_by_loops(x, by, rows.astype(np.float32).astype(float))
    np.testing.assert_allclose(y[0, :, :3, :4], expected[:, :3, :4], rtol=1e-9)  # the last cells are interpolated


def test_a_shadow_covers_a_half_plane():
    x, line = torch.ones(1, 3, 4, 4, dtype=torch.float64), {"shadow_strength": 0.5, "shadow_distance": 0.5}
    y = augment(x, "crop_height: 3 crop_width: 3", coefficients(**{**line, "shadow_angle": math.pi / 2}))
    assert y[0, 0].tolist() == [[1, 1, 1], [1, 1, 1], [0.5, 0.5, 0.5]]


def test_train_draws_what_is_given():
    moves = "mirror { rand_type: 'bernoulli' } zoom { exp: true mean: 0.6931472 }"
    y, blob = apply(
        "DataAugmentation",
        f"augmentation_param {{ crop_height: 2 crop_width: 4 {moves} }}",
        RAMP,
        tops=2,
        phase=TRAIN,
    )
    assert y[0, 0, 0].tolist() == pytest.approx([13, 12.5, 12, 11.5], abs=1e-5)
    torch.testing.assert_close(blob, coefficients(mirror=1, zoom_x=math.log(2), zoom_y=math.log(2)))
    never = augment(RAMP, "crop_height: 2 crop_width: 4 translate { mean: 9 }", phase=TRAIN)
    assert torch.equal(never, RAMP[:, :, 1:3, 1:5])
    in_test = augment(RAMP, f"crop_height: 2 crop_width: 4 augment_during_test: true {moves}")
    assert torch.equal(in_test, y)


def generate(options: str, *bottoms: Tensor) -> dict[str, Tensor]:
    blob = apply("GenerateAugmentationParameters", options, *bottoms)
    return dict(zip(NAMES, blob[:, :, 0, 0].unbind(1), strict=True))


def test_distributions():
    torch.manual_seed(1)
    x = torch.zeros(2000, 1, 40, 40)
    options = (
        "crop_height: 4 crop_width: 4 rotate { spread: 0.2 mean: 0.1 }"
        " translate_x { rand_type: 'gaussian' spread: 0.3 }"
        " gamma { rand_type: 'uniform_bernoulli' mean: 0.5 prob: 0.25 exp: true }"
        " brightness { discretize: true mean: 1.5 multiplier: 0.1 } sat_pow { spread: 0.5 exp: true }"
        " col_add { rand_type: 'gaussian_bernoulli' prob: 0 mean: 3 } motion_blur_size { mean: 2 }"
    )
    by = generate(f"augmentation_param {{ {options} }}", x.double())
    angle = by["angle"]
    assert (angle.min() >= -0.1) & (angle.max() <= 0.3)
    assert angle.mean().item() == pytest.approx(0.1, abs=0.02)
    assert by["dx"].std().item() == pytest.approx(0.3, abs=0.03)
    assert not by["dy"].any()
    assert set(by["gamma"].unique().tolist()) == {0, 0.5}
    assert (by["gamma"] == 0.5).double().mean().item() == pytest.approx(0.25, abs=0.05)
    assert by["brightness"].unique().tolist() == pytest.approx([0.2])
    assert torch.equal(by["pow_withmean1"], by["pow_withmean2"])
    assert not by["pow_withmean0"].any()
    assert not by["add_nomean1"].any()
    assert set(by["motion_blur_size"].tolist()) == {2}


def test_modes():
    bottoms = (coefficients(2, dx=0.5, gamma=0.3, zoom_x=0.1), torch.zeros(2, 3, 20, 20), torch.zeros(2, 3, 4, 4))
    options = "augmentation_param { mode: '%s' translate_y { mean: 0.25 } gamma { mean: 2 } }"
    names = ("dx", "dy", "gamma", "zoom_x")

    def found(mode: str) -> list[float]:
        by = generate(options % mode, *(x.double() for x in bottoms))
        return [float(by[name][1]) for name in names]

    assert found("add") == pytest.approx([0.5, 0.25, 0.3 + math.log(2), 0.1])
    assert found("replace") == pytest.approx([0, 0.25, math.log(2), 0])
    assert found("regenerate") == pytest.approx([0, 0.25, math.log(2), 0])


def test_the_schedule_follows_the_runs():
    options = "augmentation_param { crop_height: 4 crop_width: 4 rotate { spread: 1 } }"
    options += " coeff_schedule_param { half_life: 2 initial_coeff: 0.5 final_coeff: 1 }"
    layer = build("GenerateAugmentationParameters", options, (1, 1, 9, 9))
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    seen = []
    for _ in range(3):
        layer(x)
        seen.append(layer.discount().item())
    assert seen[1] == pytest.approx(0.75, abs=1e-5)  # half of the way after the half-life
    assert seen[0] < seen[1] < seen[2] < 1
    layer.eval()
    assert layer.effects_now is Effects.NONE


def test_the_mean_is_learned():
    layer = build("DataAugmentation", "augmentation_param { recompute_mean: 2 mean_per_pixel: false }", (2, 1, 1, 2))
    for blob in layer.tensors:
        blob.zero_()
    batches = torch.tensor([[[0.0, 2], [2, 4]], [[4, 4], [4, 4]], [[9, 9], [9, 9]]], dtype=torch.float64)
    tops = [as_tuple(layer(x.view(2, 1, 1, 2)))[0].flatten().tolist() for x in batches]
    assert tops == [[-2, 0, 0, 2], [1, 1, 1, 1], [6, 6, 6, 6]]
    assert [blob.flatten().tolist() for blob in layer.tensors] == [[3], [2.5, 3.5], [3]]


def flow_net(size: str, crop: str, options: str = "") -> str:
    shapes = [f"shape {{ dim: 2 dim: {channels} {size} }}" for channels in (3, 3, 2)]
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ {shape} }} }}'
        for name, shape in zip(("one", "two", "flow"), shapes, strict=True)
    )
    return f"""{inputs}
      layer {{ name: "first" type: "DataAugmentation" bottom: "one" top: "a" top: "p" propagate_down: false
        augmentation_param {{ {crop} {options} rotate {{ spread: 0.3 }} zoom {{ exp: true mean: 0.5 spread: 0.1 }} }} }}
      layer {{ name: "more" type: "GenerateAugmentationParameters" bottom: "p" bottom: "two" bottom: "a" top: "q"
        augmentation_param {{ translate {{ spread: 0.05 }} rotate {{ spread: 0.03 }} }}
        coeff_schedule_param {{ half_life: 50000 initial_coeff: 0.5 final_coeff: 1 }} }}
      layer {{ name: "second" type: "DataAugmentation" bottom: "two" bottom: "q" top: "b"
        augmentation_param {{ {crop} {AXES} {options} }} }}
      layer {{ name: "moved" type: "FlowAugmentation" bottom: "flow" bottom: "p" bottom: "q" top: "f"
        augmentation_param {{ {crop} }} }}
      layer {{ name: "warp" type: "FlowWarp" bottom: "b" bottom: "f" top: "w"
      }}"""


def test_the_changed_flow_joins_the_changed_images():
    """The second image is the first one warped by the flow.

    The transformed images and the transformed flow must agree in the same way.
    """
    layers = flow_net("dim: 40 dim: 50", "crop_height: 16 crop_width: 20")
    net = Net(text.parse(layers, caffe_pb2.NetParameter()), TRAIN)
    rows, columns = np.mgrid[:40, :50] / 50
    for name, (down, across) in {"one": (0, 0), "two": (-2 / 50, 3 / 50)}.items():
        net.blobs[name].data[:] = np.stack([columns - across + 0.2, rows - down + 0.2, rows + 1 - rows])
    net.blobs["flow"].data[:] = np.array([3, -2]).reshape(2, 1, 1)
    net.forward()
    one, two = net.blobs["a"].data, net.blobs["w"].data
    place = net.blobs["f"].data + np.mgrid[:16, :20][::-1]
    inside = ((place >= 0) & (place <= np.array([19, 15]).reshape(2, 1, 1))).all(1, keepdims=True).repeat(3, 1)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(two[inside], one[inside], atol=2e-5)
    assert np.abs(net.blobs["p"].data).max() > 0.05


def test_identical_changes_only_crop_the_flow():
    flow = np.random.default_rng(1).normal(size=(1, 2, 6, 8))
    options = "augmentation_param { crop_height: 4 crop_width: 4 }"
    y = apply("FlowAugmentation", options, flow, coefficients(), coefficients())
    np.testing.assert_allclose(y, flow[:, :, 1:5, 2:6])
    y = apply("FlowAugmentation", options, flow, coefficients(dx=0.25), coefficients(zoom_x=math.log(2)))
    np.testing.assert_allclose(y[0, 1], flow[0, 1, 1:5, 3:7])
    place = np.arange(4) + 3 + flow[0, 0, 1:5, 3:7]  # in the image; about the centre, 4, it is 2 (place - 4) + 2
    np.testing.assert_allclose(y[0, 0], (place - 4) * 2 + 2 - np.arange(4))


def test_black_pairs_and_borders():
    one, two, flow = (torch.full((2, c, 4, 6), float(value)) for c, value in ((3, 1), (3, 2), (2, 3)))
    black = "black_augmentation_param { black { rand_type: 'bernoulli' } }"
    tops = apply("BlackAugmentation", black, one, two, flow, tops=3, phase=TEST)
    assert [top.unique().tolist() for top in tops] == [[2], [2], [0]]
    kinds = set()
    for seed in range(12):
        torch.manual_seed(seed)
        tops = apply("BlackAugmentation", "black_augmentation_param { border { mean: 0.25 } }", one, flow, tops=2)
        assert torch.equal(tops[0][:, 0] > 0, tops[1][:, 0] > 0)
        kinds.update(tuple(map(tuple, top.long().tolist())) for top in tops[0][:, 0])
    full, none, edged = (1,) * 6, (0,) * 6, (0, 1, 1, 1, 1, 0)
    assert kinds == {(edged,) * 4, (none, full, full, none), (none, edged, edged, none)}


def test_weights_of_another_crop_bring_their_mean(tmp_path):
    def net(height: int, width: int, per_pixel: str) -> Net:
        options = f"recompute_mean: 5 mean_per_pixel: {per_pixel}"
        layers = flow_net("dim: 12 dim: 14", f"crop_height: {height} crop_width: {width}", options)
        return Net(text.parse(layers, caffe_pb2.NetParameter()), TEST)

    trained = net(4, 4, "false")
    mean = np.arange(48).reshape(1, 3, 4, 4)
    for value, blob in zip((9, mean, np.array([1, 2, 3]).reshape(1, 3, 1, 1)), trained.params["first"], strict=True):
        blob.data[...] = value
    trained.save(str(tmp_path / "w.caffemodel"))
    for per_pixel, wanted in (("false", [1, 2, 3]), ("true", [7.5, 23.5, 39.5])):
        other = net(6, 8, per_pixel)
        other.copy_from(str(tmp_path / "w.caffemodel"))
        count, plane, channels = (blob.data for blob in other.params["first"])
        assert (count.item(), plane.shape) == (9, (1, 3, 6, 8))
        assert (plane == channels).all()
        assert channels.flatten().tolist() == wanted
        other.forward()
        assert other.blobs["a"].data[0, :, 0, 0].tolist() == [-value for value in wanted]


def test_coefficients_that_cannot_be_applied_are_an_error():
    x, blob = torch.zeros(1, 1, 4, 6, dtype=torch.float64), coefficients(gamma=0.5)
    with pytest.raises(LayerError, match=r"contains gamma, which needs images of 3 channels"):
        augment(x, "crop_height: 2 crop_width: 4", blob)
    assert augment(x, "crop_height: 2 crop_width: 4", coefficients(gamma=0.0005, dx=0.1)).shape == (1, 1, 2, 4)
    with pytest.raises(LayerError, match="9 chromatic_eigvec"):
        augment(x.expand(-1, 3, -1, -1), "crop_height: 2 crop_width: 4", coefficients(lmult_pow=0.5))


def test_errors_for_invalid_input():
    def no(kind: str, options: str, *shapes: tuple[int, ...], says: str) -> None:
        assert_rejected(kind, f"augmentation_param {{ {options} }}", *shapes, says=says)

    data, image, blob, crop = "DataAugmentation", (2, 3, 4, 6), (2, 42, 1, 1), "crop_height: 4 crop_width: 4"
    no(data, "", (2, 3), says="expected (N, C, H, W)")
    no(data, "crop_height: 3", image, says="needs both crop_height and crop_width")
    no(data, "crop_height: 5 crop_width: 4", image, says="the crop is 5 x 4; expected a crop that fits")
    no(data, "crop_height: 0 crop_width: 4", image, says="expected sizes above 0")
    no(data, crop, image, (2, 41, 1, 1), says="expected (2, 42, 1, 1)")
    no(
        data,
        f"{crop} zoom {{ rand_type: 'cauchy' }}",
        image,
        says='zoom has rand_type "cauchy", expected one of',
    )
    no(data, f"{crop} gamma {{ }}", (2, 1, 4, 6), says="gamma needs 3 channels")
    no(data, f"{crop} sat_pow {{ }}", image, says="needs 9 chromatic_eigvec")
    no(data, f"{crop} chromatic_eigvec: 1", image, says="has 1 chromatic_eigvec, expected 9")
    no(data, f"{crop} mode: 'multiply'", image, says='mode is "multiply", expected one of add')
    no(data, "mean: [1, 2, 3] mean_per_pixel: false", (2, 1, 4, 6), says="has 1 channels")
    half = f"augmentation_param {{ {crop} }} coeff_schedule_param {{ half_life: 0 }}"
    assert_rejected(data, half, image, says="half_life is 0")
    kind = "GenerateAugmentationParameters"
    no(kind, "", image, says="needs both crop_height and crop_width")
    no(kind, crop, blob, image, says="has 2 bottoms")
    no(kind, crop, blob, says="needs bottomheight and bottomwidth: no bottom")
    no(kind, crop, (2, 7, 1, 1), says="expected (2, 42, 1, 1)")
    no("FlowAugmentation", crop, image, blob, blob, says="expected (N, 2, H, W)")
    no("FlowAugmentation", "", (2, 2, 4, 6), blob, blob, says="needs both crop_height and crop_width")
    no("FlowAugmentation", crop, (2, 2, 4, 6), blob, (3, 42, 1, 1), says="expected (2, 42, 1, 1)")
    assert_rejected("BlackAugmentation", "", (2, 4, 4, 6), says="expected 2 or 3 channels")
    assert_rejected("BlackAugmentation", "", image, (2, 2, 4, 5), tops=2, says="height and width of the first bottom")
    assert_rejected("BlackAugmentation", "", image, image, says="has 2 bottoms and 1 tops")
