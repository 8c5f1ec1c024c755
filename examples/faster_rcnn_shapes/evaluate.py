"""Measures the mean average precision of the trained net on the test pictures, and draws its detections.

usage: python examples/faster_rcnn_shapes/evaluate.py [FOLDER] [WEIGHTS] [OUT]

The folder lib must be on the PYTHONPATH.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from roi_data_layer.layer import NAMES, read
from rpn.proposal_target_layer import DEVIATIONS

import caffe
from caffe.layers.support.boxes import batched_nms, decode_deltas, overlaps
from caffe.pictures.boxes import outlined
from caffe.pictures.grid import grid, write_picture
from caffe.solver.detections import average_precision

LEAST, DRAWN = 0.05, 0.6  # scores of the detections that are counted, and of those that are drawn


def detect(net: caffe.Net, pixels: np.ndarray) -> torch.Tensor:
    """Return the detections (K, 6) of a picture: label, score, x1, y1, x2, y2."""
    net.blobs["data"].data[...] = pixels
    net.blobs["im_info"].data[...] = [[*pixels.shape[1:], 1]]
    net.forward()
    rois, prob, deltas = (torch.from_numpy(net.blobs[name].data.copy()) for name in ("rois", "cls_prob", "bbox_pred"))
    boxes = decode_deltas(deltas.unflatten(1, (-1, 4)) * torch.tensor(DEVIATIONS), rois[:, 1:].unsqueeze(1))
    boxes = boxes.clamp(0, pixels.shape[1] - 1)
    label, region = (prob[:, 1:].T > LEAST).nonzero().unbind(1)
    label = label + 1
    score, box = prob[region, label], boxes[region, label]
    kept = batched_nms(box, score, label, 0.3, offset=1)
    return torch.cat([label[kept].unsqueeze(1), score[kept].unsqueeze(1), box[kept]], 1)


def right(found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Whether each detection, the best first, is the first one of its object with an overlap of at least 0.5."""
    if not len(truth) or not len(found):
        return torch.zeros(len(found))
    most, box = overlaps(found[:, 2:], truth[:, :4], 1).max(1)
    taken: set[int] = set()
    marks = []
    for share, index in zip(most.tolist(), box.tolist(), strict=True):
        marks.append(float(share >= 0.5 and index not in taken))
        if share >= 0.5:
            taken.add(index)
    return torch.tensor(marks)


def evaluate(folder: Path, weights: str, out: str, count: int = 12) -> float:
    """Return the mean average precision, and write a picture of the first test images with their detections."""
    net = caffe.Net(str(Path(__file__).parent / "test.prototxt"), weights, caffe.TEST)
    scores: list[list[torch.Tensor]] = [[] for _ in NAMES]
    marks: list[list[torch.Tensor]] = [[] for _ in NAMES]
    totals, pictures, captions = np.zeros(len(NAMES)), [], []
    for index, line in enumerate((folder / "test.txt").read_text().splitlines()):
        pixels, boxes = read(folder, line)
        found, truth = detect(net, pixels), torch.from_numpy(boxes)
        for label in range(1, len(NAMES)):
            mine = found[found[:, 0] == label]
            scores[label].append(mine[:, 1])
            marks[label].append(right(mine, truth[truth[:, 4] == label]))
            totals[label] += int((truth[:, 4] == label).sum())
        if index < count:
            rows = found[found[:, 1] >= DRAWN].numpy()
            texts = [f"{NAMES[int(row[0])]} {row[1]:.2f}" for row in rows]
            image = cv2.imread(str(folder / line.split()[0]))
            shares = (rows[:, 2:] + [0, 0, 1, 1]) / image.shape[0]
            pictures.append(outlined(image, shares, rows[:, 0].astype(int).tolist(), texts))
            captions.append(f"{len(rows)} found")
    write_picture(out, grid(pictures, captions))
    each = [
        average_precision(torch.cat(scores[i]).numpy(), torch.cat(marks[i]).numpy(), totals[i], "Integral")
        for i in range(1, len(NAMES))
    ]
    for name, value in zip(NAMES[1:], each, strict=True):
        print(f"{name}: {value:.3f}")
    print(f"mean average precision: {np.mean(each):.3f}")
    return float(np.mean(each))


if __name__ == "__main__":
    given = sys.argv[1:] + ["examples/faster_rcnn_shapes/data", "", ""][len(sys.argv) - 1 :]
    place = Path(given[0])
    evaluate(place, given[1] or str(place / "faster_rcnn_iter_2500.caffemodel"), given[2] or str(place / "found.png"))
