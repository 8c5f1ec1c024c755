"""Cases of caffe.layers.augmentation."""

from caffe.proto.caffe_pb2 import TEST
from tests.layers.case import Case, within

ELSEWHERE: dict[str, str] = {}
CROP = "crop_height: 4 crop_width: 5"
IMAGES = within(0.01, 0.99, 2, 3, 7, 8)
COEFFICIENTS = within(-0.2, 0.2, 2, 42, 1, 1)
AXES = "chromatic_eigvec: [0.51, 0.56, 0.65, 0.79, 0.01, -0.62, 0.35, -0.83, 0.44] max_multiplier: 1"
MOVES = (
    "translate { spread: 0.1 } rotate { rand_type: 'gaussian' spread: 0.1 } mirror { rand_type: 'bernoulli' prob: 0.5 }"
)
DRAWS = f"{MOVES} zoom {{ exp: true mean: 0.2 spread: 0.1 }} squeeze {{ exp: true spread: 0.1 }}"
COLOURS = "gamma { exp: true spread: 0.1 } color { exp: true spread: 0.1 } lmult_pow { exp: true spread: 0.1 }"
COLOURS += " sat_mult { exp: true spread: 0.1 } noise { mean: 0.01 } shadow_strength { mean: 0.1 }"
DRAWN = {"gradient": "has none", "dtype": "draws", "strides": "draws in the order of memory"}
NONE = {"gradient": "has none"}
OPTIONS = {"compile": "asks which options are set"}


def aug(options: str) -> str:
    return f"augmentation_param {{ {options} }}"


CASES = [
    Case("DataAugmentation", "test", (IMAGES,), aug(CROP), phase=TEST, skip=NONE | OPTIONS),
    Case("DataAugmentation", "draws", (IMAGES,), aug(f"{CROP} {DRAWS} {COLOURS} {AXES}"), tops=2, skip=DRAWN | OPTIONS),
    Case("DataAugmentation", "given", (IMAGES, COEFFICIENTS), aug(f"{CROP} {AXES}"), skip=DRAWN | OPTIONS),
    Case(
        "DataAugmentation",
        "mean",
        (IMAGES,),
        aug("recompute_mean: 3 mean_per_pixel: false"),
        phase=TEST,
        skip=NONE | OPTIONS,
    ),
    Case("GenerateAugmentationParameters", "fresh", (IMAGES,), aug(f"{CROP} {DRAWS} {COLOURS}"), skip=DRAWN | OPTIONS),
    Case(
        "GenerateAugmentationParameters",
        "add",
        (COEFFICIENTS, IMAGES, within(0, 1, 2, 3, 4, 5)),
        aug(DRAWS),
        skip=DRAWN | OPTIONS,
    ),
    Case("FlowAugmentation", "plain", ((2, 2, 7, 8), COEFFICIENTS, COEFFICIENTS), aug(CROP), skip=NONE),
    Case(
        "BlackAugmentation",
        "plain",
        (IMAGES, IMAGES, (2, 2, 7, 8)),
        "black_augmentation_param { black { rand_type: 'bernoulli' prob: 0.5 } border { mean: 0.2 } }",
        tops=3,
        skip={"dtype": "draws", "strides": "draws"},
    ),
]
