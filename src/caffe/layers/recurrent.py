"""Recurrent layers. A run processes a whole sequence; the state is kept for the next run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from caffe import log
from caffe.layers.base import Effects, Layer, has_values, is_exported, shape_text
from caffe.layers.support.products import linear
from caffe.layers.support.values import can_look


class _Recurrent(Layer, abstract=True):
    """Base of LSTM and RNN: the bottoms, the state, and the projection of all inputs at once.

    bottoms: x (T, N, ...); cont (T, N), 0 where a sequence begins and 1 elsewhere; optionally x_static (N, ...), an
    input of all steps; with expose_hidden the first state, each part (1, N, D)
    tops: y (T, N, D), D = num_output; with expose_hidden the last state, each part (1, N, D)

    Without expose_hidden a run starts from the last state of the previous run, where cont is 1 in the first step. T and
    N may change between runs; a new N starts from zeros. As in Caffe, no gradient passes through first and last state.
    """

    constant = (1,)
    exempt = (1,)
    effects = Effects.BUFFERS
    parts = 1  # number of arrays in the state
    gates = 1  # rows of the weights per output
    state: Tensor
    weight_x: Tensor
    bias: Tensor
    weight_static: Tensor
    weight_h: Tensor

    def setup(self, *bottoms: Tensor) -> None:
        hidden = self.parts if self.opt.expose_hidden else 0
        self.static = len(bottoms) - 2 - hidden
        parts = range(2 + self.static, len(bottoms))
        _check_counts(self, len(bottoms), hidden)
        _check_shapes(self, bottoms, parts)
        self.exempt = (1, *parts)
        static = bottoms[2].shape[1:].numel() if self.static else 0
        self.add_blobs(bottoms[0].shape[2:].numel(), static, self.opt.num_output)
        if self.opt.expose_hidden:
            self.effects = Effects.NONE
        if self.opt.debug_info:
            self.effects |= Effects.CALLS  # log lines
            self.traceable = False
        self.register_buffer("state", torch.zeros(self.parts, 0, self.opt.num_output))

    def add_blobs(self, features: int, static: int, size: int) -> None:
        """Declare the weights in Caffe's order."""
        rows = self.gates * size
        self.add_blob("weight_x", (rows, features), self.opt.weight_filler)
        self.add_blob("bias", (rows,), self.opt.bias_filler)
        if static:
            self.add_blob("weight_static", (rows, static), self.opt.weight_filler)
        self.add_blob("weight_h", (rows, size), self.opt.weight_filler)

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        x, cont = bottoms[0].flatten(2), bottoms[1].detach()
        if self.opt.expose_hidden:
            first = torch.cat(bottoms[2 + self.static :]).detach()
        elif self.state.shape[1:2] == x.shape[1:2] and (self.state.dtype, self.state.device) == (x.dtype, x.device):
            first = self.state.clone()  # backward reads it after this run has changed the state
        else:
            first = x.new_zeros(self.parts, x.shape[1], self.opt.num_output)
        y, last = self.run(x, cont, bottoms[2] if self.static else None, first)
        if self.opt.debug_info and can_look(y):
            _log_steps(self, y)
        if self.opt.expose_hidden:
            return y, *(part.detach() for part in last)
        if has_values(x) or is_exported() or torch.compiler.is_compiling():
            self._keep(torch.cat(last).detach())
        return y

    def takes_buffer(self, name: str, shape: Sequence[int]) -> bool:
        """Accept a state of any number of streams. If the number differs from the batch's, the state starts from 0."""
        return len(shape) == 3 and (shape[0], shape[2]) == (self.parts, self.opt.num_output)

    def _keep(self, state: Tensor) -> None:
        """Copy the last state into the buffer in place, since a CUDA graph reads it at a fixed address."""
        if (self.state.shape, self.state.dtype, self.state.device) == (state.shape, state.dtype, state.device):
            self.state.copy_(state)
        else:
            self.state = state

    def run(self, x: Tensor, cont: Tensor, static: Tensor | None, first: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The top, and the parts of the last state, each (1, N, D)."""
        raise NotImplementedError(self.type)

    def project(self, x: Tensor, static: Tensor | None) -> Tensor:
        """The inputs' contribution to each gate at each step, (T, N, gates D)."""
        y = linear(x, self.weight_x, self.bias)
        return y if static is None else y + linear(static.flatten(1), self.weight_static, None)


def _check_counts(layer: _Recurrent, bottoms: int, hidden: int) -> None:
    size, tops = layer.opt.num_output, layer.top_count
    layer.require(size > 0, f"num_output is {size}, expected the size of the state, 1 or more")
    fact = f"has {bottoms} bottoms and {tops} tops, expected {2 + hidden} or {3 + hidden} bottoms"
    layer.require(layer.static in (0, 1), f"{fact} (x, cont, optionally x_static, first state)")
    layer.require(tops == 1 + hidden, f"{fact} and {1 + hidden} tops")


def _check_shapes(layer: _Recurrent, bottoms: Sequence[Tensor], parts: range) -> None:
    x, cont = bottoms[:2]
    facts = [f"{layer.bottom_name(i)} has shape {shape_text(bottom.shape)}" for i, bottom in enumerate(bottoms)]
    layer.require(x.dim() >= 3, f"{facts[0]}, expected (T, N, ...) with at least 3 axes")
    layer.require(
        cont.shape == x.shape[:2],
        f"{facts[1]}, expected {shape_text(x.shape[:2])}: one indicator for each step and stream, as {facts[0]}",
    )
    streams, size = x.shape[1], layer.opt.num_output
    if layer.static:
        fits = bottoms[2].dim() >= 2 and bottoms[2].shape[0] == streams
        layer.require(fits, f"{facts[2]}, expected (N, ...) with N = {streams}")
    for i in parts:
        layer.require(bottoms[i].shape == (1, streams, size), f"{facts[i]}, expected (1, {streams}, {size})")


def _log_steps(layer: _Recurrent, y: Tensor) -> None:
    for step, value in enumerate(y.abs().mean((1, 2)).tolist(), 1):
        place = f"    [Forward] Layer {layer.name}, step {step}, top blob {layer.spec.top[0]}"
        log.info("net.cpp:591", f"{place} data: {log.number(value)}")


class LSTM(_Recurrent, bottoms=(2, 5), tops=(1, 3), options="recurrent_param"):
    """Long short-term memory.

    bottoms x, cont, [x_static], [h0, c0], tops h, [hT, cT]: as in _Recurrent

        i, f, o, g = W_x x_t + b + W_static x_static + W_h (cont_t h_(t-1))
        c_t = cont_t s(f) c_(t-1) + s(i) tanh(g),    h_t = s(o) tanh(c_t),    s the sigmoid

    blobs W_x (4 D, features), b (4 D), [W_static], W_h (4 D, D)
    Source: Donahue et al., arXiv:1411.4389; BVLC lstm_layer.cpp, recurrent_layer.cpp.
    """

    fills_weights = True
    parts = 2
    gates = 4

    def run(self, x: Tensor, cont: Tensor, static: Tensor | None, first: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        fits = static is None and x.dtype == torch.float32 and has_values(cont) and can_look(cont)
        if fits and bool((cont[1:] == 1).all()):
            y, h, c = self.run_fused(x, first * cont[:1].unsqueeze(-1))
            return y, (h, c)
        sequence = _lstm_steps if is_exported() else _LSTMSequence.apply
        y, c = sequence(self.project(x, static), self.weight_h, cont, first[0], first[1])
        return y, (y[-1:], c.unsqueeze(0))

    def run_fused(self, x: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same by torch's LSTM kernel, if no sequence begins within the run. Its gate order is i, f, g, o."""
        size = self.opt.num_output
        weights = []
        for blob in (self.weight_x, self.weight_h, self.bias):
            i_and_f, o, g = blob.split([2 * size, size, size])
            weights.append(torch.cat([i_and_f, g, o]))
        weights.append(torch.zeros_like(self.bias, requires_grad=False))
        h, c = first.split(1)
        return torch.lstm(x, (h.contiguous(), c.contiguous()), weights, True, 1, 0.0, self.training, False, False)


class _LSTMSequence(torch.autograd.Function):
    """All steps of an LSTM over projected inputs (T, N, 4 D): returns h (T, N, D) and the last c (N, D).

    Backward is written by hand. The factors of all steps are computed at once, each step needs a few products with
    them, and the weight's gradient is one product at the end. As in Caffe, the gradient of the forget gate treats
    cont s(f) as one sigmoid.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, cont: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        steps, streams, rows = inputs.shape
        ctx.first = h, c
        gates = torch.empty_like(inputs)
        y, cells, squashed = inputs.new_empty(3, steps, streams, rows // 4)  # h, c and tanh(c) of each step
        sigmoids, turned = gates[..., : rows // 4 * 3], weight.t().contiguous()
        views = (inputs, gates, sigmoids, *gates.chunk(4, -1), cells, squashed, y, cont.unsqueeze(-1))
        for x, all_gates, ifo, i, f, o, g, c_t, tanh_c, h_t, keep in zip(*views, strict=True):
            torch.addmm(x, h * keep, turned, out=all_gates)
            ifo.sigmoid_()
            g.tanh_()
            torch.mul(f.mul_(keep), c, out=c_t).addcmul_(i, g)
            torch.mul(o, torch.tanh(c_t, out=tanh_c), out=h_t)
            h, c = h_t, c_t
        ctx.save_for_backward(gates, cells, squashed, y, weight, cont)
        c = c.clone()
        ctx.mark_non_differentiable(c)
        return y, c

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gates, cells, squashed, y, weight, cont = ctx.saved_tensors
        h, c = ctx.first
        i, f, o, g = gates.chunk(4, -1)
        before = torch.cat([c.unsqueeze(0), cells[:-1]])
        through = o * (1 - squashed.square())  # d h_t by c_t
        slopes = torch.stack([i * (1 - i) * g, f * (1 - f) * before, o * (1 - o) * squashed, (1 - g * g) * i], 2)
        rows = slopes.flatten(2)  # a view: d c_t by i, f and g, d h_t by o, then times dc and dh
        dh, dc = torch.zeros_like(h), torch.zeros_like(h)
        views = (grads[0], through, f, slopes, rows, cont.unsqueeze(-1))
        for dy, h_by_c, forget, slope, row, keep in zip(*(v.unbind()[::-1] for v in views), strict=True):
            dh = dh + dy
            dc = torch.addcmul(dc, dh, h_by_c)
            slope[:, :2].mul_(dc.unsqueeze(1))
            slope[:, 2].mul_(dh)
            slope[:, 3].mul_(dc)
            dh, dc = row.mm(weight).mul_(keep), dc * forget
        earlier = torch.cat([h.unsqueeze(0), y[:-1]]) * cont.unsqueeze(-1)
        return rows, linear(rows.flatten(0, 1).t(), earlier.flatten(0, 1).t(), None), None, None, None


def _lstm_steps(inputs: Tensor, weight: Tensor, cont: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The same as _LSTMSequence in plain torch operators, which can be exported."""
    tops = []
    for x, keep in zip(inputs.unbind(), cont.unsqueeze(-1).unbind(), strict=True):
        i, f, o, g = torch.addmm(x, h * keep, weight.t()).chunk(4, -1)
        c = f.sigmoid() * keep * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        tops.append(h)
    return torch.stack(tops), c.detach()


class RNN(_Recurrent, bottoms=(2, 4), tops=(1, 2), options="recurrent_param"):
    """Simple recurrent network with an output layer.

    bottoms x, cont, [x_static], [h0], tops o, [hT]: as in _Recurrent

        h_t = tanh(W_x x_t + b + W_static x_static + W_h (cont_t h_(t-1))),    o_t = tanh(W_o h_t + b_o)

    blobs W_x (D, features), b (D), [W_static], W_h (D, D), W_o (D, D), b_o (D)
    Source: BVLC rnn_layer.cpp, recurrent_layer.cpp.
    """

    fills_weights = True
    weight_o: Tensor
    bias_o: Tensor

    def add_blobs(self, features: int, static: int, size: int) -> None:
        super().add_blobs(features, static, size)
        self.add_blob("weight_o", (size, size), self.opt.weight_filler)
        self.add_blob("bias_o", (size,), self.opt.bias_filler)

    def run(self, x: Tensor, cont: Tensor, static: Tensor | None, first: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        sequence = _rnn_steps if is_exported() else _RNNSequence.apply
        h = sequence(self.project(x, static), self.weight_h, cont, first[0])
        return linear(h, self.weight_o, self.bias_o).tanh(), (h[-1:],)


class _RNNSequence(torch.autograd.Function):
    """All hidden states (T, N, D) of an RNN over projected inputs (T, N, D)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, cont: Tensor, h: Tensor) -> Tensor:
        ctx.first = h
        y, turned = torch.empty_like(inputs), weight.t().contiguous()
        for x, h_t, keep in zip(inputs, y, cont.unsqueeze(-1), strict=True):
            h = torch.addmm(x, h * keep, turned, out=h_t).tanh_()
        ctx.save_for_backward(y, weight, cont)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        y, weight, cont = ctx.saved_tensors
        slopes, dh, keep = torch.empty_like(y), torch.zeros_like(ctx.first), cont.unsqueeze(-1)
        for t in range(len(y) - 1, -1, -1):
            torch.mul(dh + grads[0][t], 1 - y[t].square(), out=slopes[t])
            dh = slopes[t].mm(weight).mul_(keep[t])
        earlier = torch.cat([ctx.first.unsqueeze(0), y[:-1]]) * keep
        return slopes, linear(slopes.flatten(0, 1).t(), earlier.flatten(0, 1).t(), None), None, None


def _rnn_steps(inputs: Tensor, weight: Tensor, cont: Tensor, h: Tensor) -> Tensor:
    """The same as _RNNSequence in plain torch operators, which can be exported."""
    tops = []
    for x, keep in zip(inputs.unbind(), cont.unsqueeze(-1).unbind(), strict=True):
        h = torch.addmm(x, h * keep, weight.t()).tanh()
        tops.append(h)
    return torch.stack(tops)


class LSTMUnit(Layer, bottoms=3, tops=2):
    """One step of an LSTM, without weights.

    bottoms: c_prev (1, N, D); gate inputs x (1, N, 4 D) in the order i, f, o, g; cont (1, N)
    tops: c (1, N, D), h (1, N, D)

        c = cont s(f) c_prev + s(i) tanh(g),    h = s(o) tanh(c),    s the sigmoid

    Source: BVLC lstm_unit_layer.cpp.
    """

    constant = (2,)
    exempt = (2,)

    def setup(self, c: Tensor, x: Tensor, cont: Tensor) -> None:
        fact = f"bottoms have shapes {shape_text(c.shape)}, {shape_text(x.shape)} and {shape_text(cont.shape)}"
        fits = c.dim() == 3 and c.shape[0] == 1 and x.shape == (1, c.shape[1], 4 * c.shape[2])
        self.require(fits and cont.shape == c.shape[:2], f"{fact}, expected (1, N, D), (1, N, 4 D) and (1, N)")

    def forward(self, c: Tensor, x: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = x.chunk(4, -1)
        c = _Forget.apply(f, cont.detach().unsqueeze(-1)) * c + i.sigmoid() * g.tanh()
        return c, o.sigmoid() * c.tanh()


class _Forget(torch.autograd.Function):
    """f = cont s(x) with the gradient f (1 - f), which Caffe uses for every cont."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cont: Tensor) -> Tensor:
        f = x.sigmoid() * cont
        ctx.save_for_backward(f)
        return f

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (f,) = ctx.saved_tensors
        return grads[0] * f * (1 - f), None
