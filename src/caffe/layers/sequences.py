"""Recurrent layers of forks, and layers that prepare their sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from caffe.layers.base import Effects, Layer, Source, has_values, shape_text
from caffe.layers.support.exact import is_exact, tell
from caffe.layers.support.products import linear

__all__ = ["ContinuationIndicator", "Lstm", "ReverseTime"]


class _Clip(torch.autograd.Function):
    """The identity. Its gradient is clipped to -most ... most."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, most: float) -> Tensor:
        ctx.most = most
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].clamp(-ctx.most, ctx.most), None


class _Lstm(Layer, abstract=True):
    """Base of Lstm: declares its blobs."""

    weight_x: Tensor
    weight_h: Tensor
    bias: Tensor
    state: Tensor
    apart: bool
    """Whether steps and streams are separate axes, as in CTPN."""

    def setup(self, x: Tensor, cont: Tensor | None = None) -> None:
        opt = self.opt
        self.require(opt.num_output > 0 and opt.batch_size > 0, "num_output and batch_size must be positive")
        self.apart = x.dim() == 3 and not opt.HasField("batch_size")
        streams, rows = self.streams(x), x.shape[:2].numel() if self.apart else x.shape[0] if x.dim() > 1 else 0
        fact = f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (T N, ...) with N = {streams}"
        self.require(rows > 0 and rows % streams == 0, fact)
        if cont is not None:
            fact = f"{self.bottom_name(1)} has {cont.numel()} elements, expected {rows}, one for each step and stream"
            self.require(cont.numel() == rows, fact)
        size = opt.num_output
        self.add_blob("weight_x", (4 * size, x.shape[1 + self.apart :].numel()), opt.weight_filler)
        self.add_blob("weight_h", (4 * size, size), opt.weight_filler)
        self.add_blob("bias", (4 * size,), opt.bias_filler)
        self.register_buffer("state", torch.zeros(2, streams, size))

    def streams(self, x: Tensor) -> int:
        """The number of streams, N."""
        return x.shape[1] if self.apart else self.opt.batch_size


class Lstm(_Lstm, bottoms=(1, 2)):
    """junhyukoh's long short-term memory, in which steps and streams share an axis. It differs from BVLC's LSTM.

    bottoms: x (T N, ...), ordered by step, N = batch_size; optionally cont (T N), 0 where a sequence begins, else 1
    top h (T N, H), H = num_output.    CTPN's, if batch_size is not given and x has 3 axes: x (T, N, I), h (T, N, H)

        i, f, o, g = W_x x_t + W_h (cont_t h_(t-1)) + b
        c_t = cont_t s(f) c_(t-1) + s(i) tanh(g),    h_t = s(o) tanh(c_t),    s the sigmoid

    Blobs: W_x (4 H, I), W_h (4 H, H), b (4 H). With cont, a run starts from the last state of the previous run, where
    cont is 1 in the first step; without cont, each run starts from zeros. The first state gets no gradient.
    clipping_threshold > 0 clips the gradient of i, f, o and g at each step.
    Source: junhyukoh/caffe-lstm, lstm_layer.cpp, which for N > 1 reads cont at other indices; tianzhi0549/CTPN.
    """

    constant = (1,)
    exempt = (1,)
    effects = Effects.BUFFERS

    @property
    def effects_now(self) -> Effects:
        return self.effects if len(self.spec.bottom) > 1 else Effects.NONE

    def forward(self, x: Tensor, cont: Tensor | None = None) -> Tensor:
        streams, clip = self.streams(x), self.opt.clipping_threshold
        given = linear(x.flatten(0, 1) if self.apart else x.flatten(1), self.weight_x, self.bias)
        given = given.unflatten(0, (-1, streams))
        flags = None if cont is None else cont.detach().reshape(-1, streams, 1)
        if clip > 0 and is_exact():
            tell(f"the gradient is cut to {clip:g} at each step")
        h, c = self.state.to(x.dtype).clone() if flags is not None else x.new_zeros(2, streams, self.opt.num_output)
        tops = []
        for step, value in enumerate(given.unbind(0)):
            if flags is not None:
                h, c = h * flags[step], c * flags[step]
            gates = value if flags is None and step == 0 else value + linear(h, self.weight_h, None)
            if clip > 0 and not is_exact():
                gates = _Clip.apply(gates, clip)
            i, f, o, g = gates.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            tops.append(h)
        if flags is not None and has_values(x):
            self.state.copy_(torch.stack([h, c]).detach())
        return torch.stack(tops) if self.apart else torch.cat(tops)


class ContinuationIndicator(Source, bottoms=(0, 1)):
    """Creates continuation indicators for sequences that begin at the first step of each batch.

    bottom: optionally a blob (N, ...), of which only the first size is used   top (T, N), T = time_step

        y[t, n] = 0 if t = 0 else 1

    Without a bottom N is batch_size. Source: yalecyu/crnn.caffe, continuation_indicator_layer.cpp.
    """

    exempt = (0,)
    effects = Effects.NONE
    traceable = False

    def setup(self, *bottoms: Tensor) -> None:
        opt = self.opt
        self.require(
            not opt.HasField("axis"), "axis is an option of jolibrain's layer, which is not implemented; remove it"
        )
        items = bottoms[0].shape[0] if bottoms and bottoms[0].dim() else opt.batch_size
        fact = f"time_step is {opt.time_step} and the batch size {items}; expected both above 0"
        self.require(opt.time_step > 0 and items > 0, fact)
        self.shapes = [(opt.time_step, items)]

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if bottoms:
            self.shapes = [(self.opt.time_step, bottoms[0].shape[0])]
        return super().infer(*bottoms)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor]:
        items = bottoms[0].shape[0] if bottoms else self.shapes[0][1]
        dtype, device = (bottoms[0].dtype, bottoms[0].device) if bottoms else (torch.float32, self.device)
        step = torch.arange(self.opt.time_step, device=device)
        return ((step > 0).to(dtype).unsqueeze(1).repeat(1, items),)


class ReverseTime(Layer, bottoms=2):
    """Reverses the steps of each sequence.

    bottoms: x (T, N, ...); lengths L (N)   top y of x's shape

        y[t, n] = x[L[n] - 1 - t, n] for t < L[n]; for later t, x[t, n] with copy_remaining: true, else 0

    copy_remaining is required: without it the source leaves old values in the top.
    Source: ChWick/caffe, reverse_time_layer.cpp.
    """

    constant = (1,)
    exempt = (1,)
    traceable = False

    def setup(self, x: Tensor, lengths: Tensor) -> None:
        self.require(self.opt.HasField("copy_remaining"), "copy_remaining must be given, true or false")
        self.require(x.dim() >= 2, f"{self.bottom_name(0)} has shape {shape_text(x.shape)}, expected (T, N, ...)")
        fact = f"{self.bottom_name(1)} has shape {shape_text(lengths.shape)}, expected {x.shape[1]}: one length per"
        self.require(tuple(lengths.shape) == (x.shape[1],), f"{fact} sequence")

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        step = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
        length = lengths.detach().nan_to_num(0).long().clamp(0, x.shape[0])
        inside = step < length
        place = (length - 1 - step).where(inside, step)
        index = place.view(*place.shape, *[1] * (x.dim() - 2)).expand_as(x)
        y = x.gather(0, index)
        return y if self.opt.copy_remaining else y.where(inside.view(*place.shape, *[1] * (x.dim() - 2)), 0)
