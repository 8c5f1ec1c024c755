"""Cases of caffe.layers.focal."""

from tests.layers.case import Case, labels

ELSEWHERE: dict[str, str] = {}
CASES = [
    Case("FocalLoss", "default", ((7, 5), labels(5, 7))),
    Case("FocalLoss", "cells", ((2, 5, 3, 2), labels(5, 2, 3, 2)), "focal_loss_param { alpha: 1 gamma: 1.5 }", tops=2),
    Case("FocalLoss", "ignore", ((7, 5), labels(5, 7)), "loss_param { ignore_label: 2 }"),
    Case("FocalLoss", "plain", ((7, 5), labels(5, 7)), "focal_loss_param { alpha: 1 gamma: 0 }"),
]
