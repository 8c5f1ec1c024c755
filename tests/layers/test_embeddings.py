"""The embedding vectors of matched detections, with values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from caffe.errors import LayerError
from tests.layers.build import apply, assert_rejected

KIND = "AnchorEmbeddingExtractor"
RNG = np.random.default_rng(1)
MAPS = RNG.normal(size=(4, 2, 5, 3, 4))
# item, score, box, anchor, track, action, x, y
ROWS = np.array(
    [
        [0, 1, 0.1, 0.2, 0.3, 0.4, 2, 7, 1, 3, 2],
        [1, 1, 0.5, 0.6, 0.7, 0.8, 0, 7, 0, 0, 1],
        [-1, 0, 0, 0, 0, 0, 9, 9, 0, 99, 99],
        [1, 1, 0.5, 0.5, 0.6, 0.6, 3, 7, 2, 1, 0],
        [0, 1, 0.5, 0.5, 0.6, 0.6, 3, 4, 5, 1, 0],
    ]
)


def extract(rows: np.ndarray, options: str, tops: int = 2) -> list[np.ndarray]:
    options = f"embedding_extractor_param {{ num_anchors: 4 label_src_pos: 8 {options} }}"
    return [top.numpy() for top in apply(KIND, options, rows[None, None], *MAPS, tops=tops)]


def test_vectors_by_hand():
    vectors, labels, weights = extract(ROWS, "num_valid_actions: 3 output_instance_weights: true", 3)
    np.testing.assert_array_equal(vectors, [MAPS[2, 0, :, 2, 3], MAPS[0, 1, :, 1, 0], MAPS[3, 1, :, 0, 1]])
    assert labels.tolist() == [1, 0, 2]
    assert weights.tolist() == [1, 0.5, 0.5]
    vectors, labels, boxes = extract(ROWS, "output_proposals: true", 3)
    assert (len(vectors), labels.tolist()) == (4, [1, 0, 2, 5])
    assert boxes[0].tolist() == [0, 0.1, 0.2, 0.3, 0.4]


def test_without_a_valid_row():
    vectors, labels, boxes = extract(ROWS[2:3], "output_proposals: true", 3)
    assert (vectors.tolist(), labels.tolist(), boxes.tolist()) == ([[0] * 5], [-1], [[-1] * 5])


def test_errors_for_invalid_input():
    wrong = ROWS.copy()
    wrong[0, 9] = 4
    with pytest.raises(LayerError, match="contains the x 4, expected 0 to 3"):
        extract(wrong, "")
    shapes = ((1, 1, 5, 11), *[(2, 5, 3, 4)] * 4)

    def no(options: str, says: str, tops: int = 2, shapes: tuple[tuple[int, ...], ...] = shapes) -> None:
        assert_rejected(KIND, f"embedding_extractor_param {{ {options} }}", *shapes, says=says, tops=tops)

    both = "output_instance_weights: true output_proposals: true"
    no("num_anchors: 3 label_src_pos: 8", "num_anchors is 3, expected 4")
    no("num_anchors: 4", "must be given")
    no("num_anchors: 4 label_src_pos: 11", "expected a column, 0 to 10")
    no(f"num_anchors: 4 label_src_pos: 8 {both}", "exclude each other")
    no("num_anchors: 4 label_src_pos: 8", "a third top needs", 3)
    no("num_anchors: 4 label_src_pos: 8", "expected (1, 1, D, 11)", shapes=((1, 1, 5, 7), *shapes[1:]))
    no("num_anchors: 4 label_src_pos: 8", "as each map", shapes=(*shapes[:4], (2, 5, 3, 5)))
