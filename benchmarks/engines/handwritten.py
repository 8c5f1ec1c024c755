"""Small nets as a PyTorch user writes them: `nn` modules, built-in losses, `torch.optim.SGD`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.engines.pytorch import stepping
from benchmarks.plain_torch import batches


class Mlp(nn.Module):
    """A perceptron with two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.ip1, self.ip2, self.ip3 = nn.Linear(784, 256), nn.Linear(256, 128), nn.Linear(128, 10)

    def forward(self, data: Tensor, label: Tensor) -> Tensor:
        x = F.relu(self.ip1(data.flatten(1)))
        return F.cross_entropy(self.ip3(F.relu(self.ip2(x))), label)


class Autoencoder(nn.Module):
    """Sigmoid layers down to 16 units and up again."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [784, 256, 64, 16, 64, 256]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.out = nn.Linear(256, 784)

    def forward(self, data: Tensor, label: Tensor) -> Tensor:
        x = data
        for layer in self.hidden:
            x = torch.sigmoid(layer(x))
        return F.mse_loss(self.out(x), data, reduction="sum") / (2 * len(data))


class Siamese(nn.Module):
    """One perceptron on both images of a pair, and the contrastive loss."""

    def __init__(self) -> None:
        super().__init__()
        self.ip1, self.ip2, self.ip3 = nn.Linear(784, 128), nn.Linear(128, 10), nn.Linear(10, 2)

    def embed(self, x: Tensor) -> Tensor:
        """The two features of each image."""
        return self.ip3(self.ip2(F.relu(self.ip1(x.flatten(1)))))

    def forward(self, data: Tensor, label: Tensor) -> Tensor:
        distance = (self.embed(data[:, :1]) - self.embed(data[:, 1:])).square().sum(1)
        near = (label != 0).float()
        far = F.relu(1 - (distance + 1e-12).sqrt()).square()
        return (near * distance + (1 - near) * far).sum() / (2 * len(data))


class Lstm(nn.Module):
    """An LSTM of 64 units and a classifier of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.ip = nn.LSTM(64, 64), nn.Linear(64, 10)

    def forward(self, data: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.ip(self.lstm(data)[0]).flatten(0, 1), label.flatten())


NETS = {"mlp": Mlp, "autoencoder": Autoencoder, "siamese": Siamese, "lstm": Lstm}


def train(folder: str, net: str, tuned: bool = False, compiled: bool = False) -> Callable[[], object]:
    """Zero the gradients, forward, backward, SGD. Tuned: fused SGD; compiled: torch.compile."""
    return stepping(NETS[net](), batches(Path(folder)), tuned, compiled)
