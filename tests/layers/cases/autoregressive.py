"""Cases of caffe.layers.autoregressive."""

from tests.layers.case import Case

ELSEWHERE: dict[str, str] = {}


def masked(name: str, shape: tuple[int, ...], options: str, mask: str, tops: int = 1) -> Case:
    """A MaskedConvolution of `tops` bottoms of one shape."""
    text = f"convolution_param {{ {options} }} masked_convolution_param {{ {mask} }}"
    return Case("MaskedConvolution", name, (shape,) * tops, text, tops)


CASES = [
    masked("a", (2, 3, 7, 5), "num_output: 4 kernel_size: 3 pad: 1", "mask: A"),
    masked("b_dilated", (2, 3, 7, 6), "num_output: 4 kernel_size: 3 pad: 2 dilation: 2 bias_term: false", "mask: B"),
    masked("rows_a", (2, 3, 5, 7), "num_output: 2 kernel_h: 5 kernel_w: 3 pad_h: 2 pad_w: 1", "mask: A rows: true"),
    masked("rows_b", (2, 4, 5, 7), "num_output: 2 group: 2 kernel_size: 3 pad: 1", "mask: B rows: true"),
    masked("colors", (2, 3, 5, 4), "num_output: 6 kernel_size: 3 pad: 1", "mask: A colors: 3"),
    masked("nd1", (2, 3, 7), "num_output: 4 kernel_size: 5 pad: 2", "mask: A"),
    masked("two_bottoms", (2, 3, 7, 5), "num_output: 4 kernel_size: 3 pad: 1", "mask: B", 2),
]
