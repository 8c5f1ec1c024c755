"""Draw the filters, and print how well a Gabor function describes them.

    python examples/gabor/filters.py [--picture filters.png]

A Gabor function is a sine wave multiplied by a Gaussian; it describes the patterns to which Hubel and Wiesel's simple
cells respond. It is fitted to every filter by gradient descent from several starts. The fit is the share of the
filter's variance that it explains. The principal components of the same patches are fitted, too.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

import caffe

HERE = Path(__file__).parent
DATA = Path("examples/gabor/data")


def gabors(values: torch.Tensor, side: int) -> torch.Tensor:
    """Gabor functions (N, side * side) of length 1: values (N, 7) are place, two widths, frequency, angle, phase."""
    x0, y0, long, short, frequency, angle, phase = (each[:, None] for each in values.unbind(1))
    y, x = (each.flatten()[None] - (side - 1) / 2 for each in torch.meshgrid(*[torch.arange(side)] * 2, indexing="ij"))
    along = (x - x0) * torch.cos(angle) + (y - y0) * torch.sin(angle)
    across = (y - y0) * torch.cos(angle) - (x - x0) * torch.sin(angle)
    bell = torch.exp(-((along / short.exp()) ** 2 + (across / long.exp()) ** 2) / 2)
    wave = torch.cos(frequency * along + phase)
    made = bell * wave
    made = made - made.mean(1, keepdim=True)
    return made / made.norm(dim=1, keepdim=True).clamp(min=1e-9)


def fit(filters: np.ndarray, steps: int = 300, starts: int = 8) -> np.ndarray:
    """For filters (N, side, side), the share of the variance that the best Gabor function found explains (N)."""
    count, side = len(filters), filters.shape[1]
    flat = torch.tensor(filters.reshape(count, -1), dtype=torch.float32)
    flat = flat - flat.mean(1, keepdim=True)
    flat = (flat / flat.norm(dim=1, keepdim=True)).repeat_interleave(starts, 0)
    spectrum = np.abs(np.fft.fft2(filters, (32, 32)))[:, :, :17]
    spectrum[:, :2, :2] = 0
    rows, columns = np.unravel_index(spectrum.reshape(count, -1).argmax(1), spectrum.shape[1:])
    rows = np.where(rows > 16, rows - 32, rows) * 2 * math.pi / 32
    columns = columns * 2 * math.pi / 32
    mass = (filters**2).reshape(count, -1) / (filters**2).sum((1, 2))[:, None]
    y, x = (each.ravel() - (side - 1) / 2 for each in np.mgrid[:side, :side])
    start = np.stack([mass @ x, mass @ y, *np.full((2, count), math.log(side / 5)), np.hypot(rows, columns)], 1)
    start = np.concatenate([start, np.arctan2(rows, columns)[:, None], np.zeros((count, 1))], 1).repeat(starts, 0)
    start[:, 6] = np.tile(np.arange(starts) % 4 * math.pi / 2, count)
    start[:, 2:4] *= np.where(np.tile(np.arange(starts) < 4, count), 1, 0.3)[:, None]
    values = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    optimizer = torch.optim.Adam([values], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        alike = (gabors(values, side) * flat).sum(1)
        (-alike.sum()).backward()
        optimizer.step()
    with torch.no_grad():
        return (gabors(values, side) * flat).sum(1).view(count, starts).max(1).values.clamp(min=0).numpy() ** 2


def looked_for(weights: str) -> np.ndarray:
    """Return the pattern to which each filter responds most, (N, side, side), strongest filters first."""
    net = caffe.Net(str(HERE / "ica.prototxt"), weights, caffe.TEST)
    matrix = net.params["filters"][0].data
    pixels = matrix @ np.load(DATA / "whitening.npz")["pixels"]
    side = round(pixels.shape[1] ** 0.5)
    return pixels[np.argsort(-np.linalg.norm(matrix, axis=1))].reshape(-1, side, side)


def draw(path: Path, rows: dict[str, np.ndarray]) -> None:
    """Draw groups of filters side by side, each filter with its own scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(rows), 4.8), layout="constrained")
    for axis, (title, filters) in zip(np.atleast_1d(figure.subplots(1, len(rows))), rows.items(), strict=True):
        across = math.ceil(len(filters) ** 0.5)
        side = filters.shape[1]
        sheet = np.zeros((across * (side + 1) + 1, across * (side + 1) + 1))
        for index, each in enumerate(filters):
            top, left = (1 + (side + 1) * place for place in divmod(index, across))
            sheet[top : top + side, left : left + side] = each / np.abs(each).max()
        axis.imshow(sheet, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, default=DATA / "filters.png")
    parser.add_argument("--weights", default=str(DATA / "ica_iter_4000.caffemodel"))
    options = parser.parse_args()
    learned = looked_for(options.weights)
    components = np.load(DATA / "whitening.npz")["pixels"].reshape(-1, *learned.shape[1:])
    rows = {"learned": learned, "principal components": components}
    titles = {}
    for name, filters in rows.items():
        shares = fit(filters)
        text = f"median fit {np.median(shares):.2f}; {np.mean(shares > 0.8):.0%} above 0.8"
        print(f"{name}: {len(filters)} filters, {text}")
        titles[f"{name}: {text}"] = filters
    draw(options.picture, titles)
    print(f"written: {options.picture}")


if __name__ == "__main__":
    main()
