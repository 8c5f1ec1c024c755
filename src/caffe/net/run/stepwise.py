"""Runs one layer forward and backward. `Net` does this for each of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from caffe.errors import CaffeError
from caffe.layers.support.effects import Effects, Held, RandomState, copy_of_buffers
from caffe.net.graph.shapes import failure
from caffe.net.graph.step import History, Step
from caffe.net.plan.rewrite.call import tops_of
from caffe.parameter_memory import LENT_COPIES, collect_lent_copies, show_lent_copies
from caffe.torch_internals import gradients, set_grad_enabled

__all__ = ["backward_step", "forward_step"]


def forward_step(step: Step) -> list[Tensor]:
    """Run the layer forward and fill its tops. Returns its weighted losses."""
    step.last_run.stepwise = True
    if LENT_COPIES:  # a `with lent_copies_follow()` costs a fifth of a microsecond, and this runs for each layer
        collect_lent_copies()
    try:
        made, bottoms = _run(step)
    finally:
        if LENT_COPIES:
            show_lent_copies()
    if made is not None:
        _fill(step, made, bottoms)
    if step.missing_diffs:
        _give_diffs(step)
    if not step.weighted:
        return []
    return [weight * blob.read().sum() for blob, weight in zip(step.tops, step.loss_weights, strict=True) if weight]


def _give_diffs(step: Step) -> None:
    """Reset diffs that the last run did not keep to their initial values, the loss weights."""
    step.missing_diffs = False
    for blob, weight in zip(step.tops, step.loss_weights, strict=True):
        if blob.diff_memory.missing:
            blob.reset_diff(weight)


def _fill(step: Step, made: Sequence[Tensor | None], bottoms: Sequence[Tensor]) -> None:
    """Set the values of the tops, and mark memory that is shared or referenced elsewhere."""
    if step.shares:
        _share(step, made, bottoms[0])
        return
    wary, only = step.wary or len(bottoms) != 1, bottoms[0] if bottoms else None
    for blob, top in zip(step.tops, made, strict=True):
        if top is None:
            continue
        value = top.detach() if top.requires_grad else top
        if wary or top is only or top._is_view():
            blob.write(*_apart(step, value, top, made, bottoms), foreign=step.layer.lends)
        else:
            blob.write(value)


def _apart(
    step: Step, value: Tensor, top: Tensor, tops: Sequence[Tensor | None], bottoms: Sequence[Tensor]
) -> tuple[Tensor, bool]:
    """A top's value, and whether its memory is private: not shared with a bottom, a parameter or another top.

    The layer may hold a reference to the memory if it declares so, and autograd may for an in-place layer. A value that
    is a view of a bottom that the user can write to is copied.
    """
    place = top.untyped_storage().data_ptr() if step.wary or top._is_view() else 0
    private = True
    for blob, x in zip(step.bottoms, bottoms, strict=True):
        if top is x or (place and x.untyped_storage().data_ptr() == place):
            if not blob.data_memory.share():
                return value.clone(), True
            private = False
    if not private or not place:
        return value, private
    others = [x for x in (*tops, *step.layer.tensors) if x is not None and x is not top]
    private = all(x.untyped_storage().data_ptr() != place for x in others)
    return value, private and not (step.in_place and step.backward)


def _share(step: Step, made: Sequence[Any], x: Tensor) -> None:
    """Make the tops views of the bottom. If a shape requires C order, the bottom's data is replaced by a copy."""
    memory = step.bottoms[0].data_memory
    if made[0].data_ptr() != x.data_ptr():
        memory.lay_out(made[0].detach().view(memory.shape))
    for blob, top in zip(step.tops, made, strict=True):
        if blob.alone:
            blob.write(top.detach() if memory.share() else top.detach().clone(), private=False)
        else:
            step.shape_top(blob, tuple(top.shape))


def backward_step(step: Step) -> None:
    """Run the layer backward. Overwrites the diffs of its bottoms, and adds to the diffs of its parameters."""
    if not step.backward:
        return
    if LENT_COPIES:
        collect_lent_copies()
    try:
        _backward(step)
    finally:
        if LENT_COPIES:
            show_lent_copies()


def _backward(step: Step) -> None:
    if step.layer.constant:
        _check_constant(step)
    history = _present_history(step)
    owners, heads, diffs = {}, [], []
    for top, blob in zip(history.tops, step.tops):  # noqa: B905  `strict` would take time, here and below
        diff = blob.read_diff()
        owners[diff.untyped_storage().data_ptr()] = blob
        if top.requires_grad:
            heads.append(top)
            diffs.append(diff)
    targets, leaves = [], []
    for x, blob in zip(history.bottoms, step.bottoms):  # noqa: B905
        if x.requires_grad:
            leaves.append(x)
            targets.append(blob)
    grads = _gradients(step, heads, diffs, leaves + history.params)
    for blob, grad in zip(targets, grads):  # noqa: B905
        if grad is None:
            blob.write_diff(torch.zeros_like(blob.read(), memory_format=torch.contiguous_format))
            continue
        owner = owners.setdefault(grad.untyped_storage().data_ptr(), blob)
        if owner.diff_memory is not blob.diff_memory and not owner.diff_memory.share():
            grad = grad.clone()  # since the user can write to the other blob's diff
        blob.write_diff(grad, owner is blob)
    for blob, grad in zip(step.params, grads[len(targets) :]):  # noqa: B905
        if grad is None:
            blob.read_diff()  # creates zeros if there is no diff
        else:
            blob.add_diff(grad)


def _gradients(
    step: Step, tops: Sequence[Tensor], diffs: Sequence[Tensor], leaves: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """The gradients of the leaves, given the diffs of the tops."""
    if not tops or not leaves:
        return [None] * len(leaves)
    try:
        return gradients(tuple(tops), tuple(diffs), tuple(leaves))
    except CaffeError:
        raise
    except Exception as error:
        raise failure(step, error) from error


def _check_constant(step: Step) -> None:
    for bottom, need in enumerate(step.needs):
        if need and bottom in step.layer.constant:
            fact = f"has no gradient for {step.layer.bottom_name(bottom)}, but the net asks for one; "
            written = " ".join(f"propagate_down: {str(each != bottom).lower()}" for each in range(len(step.needs)))
            ways = ["remove force_backward, which overrides propagate_down"] if step.forced else []
            ways += [] if step.forced and step.forced[bottom] else [f"write {written} in the layer"]
            step.layer.error(fact + ", and ".join(ways))


def _present_history(step: Step) -> History:
    """The history that backward differentiates: the layer's last run, or a new run if the bottoms changed since.

    An in-place layer cannot run again because its bottom was overwritten. Neither can a layer with side effects that
    cannot be undone.
    """
    history = step.history
    if isinstance(history, str):
        if history:
            step.layer.error(history)
        with step.layer.repeating():
            return _run_recorded(step)
    effects = step.layer.effects_now
    fixed = step.in_place or (effects is not Effects.NONE and effects & Effects.CALLS)
    if fixed or history.seen == _seen(step):
        return history
    with step.layer.repeating(history.random, history.buffers):
        return _run_recorded(step)


def _run_recorded(step: Step) -> History:
    _run(step)
    assert isinstance(step.history, History)
    return step.history


def _run(step: Step) -> tuple[Sequence[Tensor | None] | None, Sequence[Tensor]]:
    """Run the layer; returns its tops (None if it leaves them unchanged) and bottoms. Stores backward's history."""
    if step.divided:
        step.layer.error(step.divided)
    try:
        if step.backward:
            return _record(step)
        bottoms = [blob.read() for blob in step.bottoms]
        tops = step.layer.forward(*bottoms)
    except CaffeError:
        raise
    except Exception as error:
        raise failure(step, error) from error
    return ((tops,) if isinstance(tops, Tensor) else tops), bottoms


def _record(step: Step) -> tuple[Sequence[Tensor | None] | None, Sequence[Tensor]]:
    """Run the layer with autograd and store the history. Returns as `_run`."""
    random, buffers = _start(step)
    bottoms = [
        blob.read().detach().requires_grad_() if need else blob.read().detach()
        for blob, need in zip(step.bottoms, step.needs, strict=True)
    ]
    before = set_grad_enabled(True)
    try:
        tops = step.layer.forward(*bottoms)
    finally:
        set_grad_enabled(before)
    made: Sequence[Tensor | None] | None = (tops,) if isinstance(tops, Tensor) else tops
    kept: tuple[Tensor, ...] = (tops,) if isinstance(tops, Tensor) else tops_of(tops, step.tops)
    params = [blob.parameter for blob in step.params]
    step.history = History(bottoms, params, kept, _seen(step), random, buffers)
    return made, bottoms


def _start(step: Step) -> tuple[RandomState | None, Held | None]:
    """The state before a run: the random generators and the layer's buffers, if the layer uses them."""
    effects = step.layer.effects_now
    if effects is Effects.NONE or effects & Effects.CALLS:
        return None, None
    random = RandomState.now() if effects & Effects.RANDOM else None
    return random, copy_of_buffers(step.layer) if effects & Effects.BUFFERS else None


def _seen(step: Step) -> list[Any]:
    """Addresses and generations of everything that a run of the layer reads: its bottoms and all its parameters.

    Buffers are not included, since backward uses the statistics of the run.
    """
    seen: list[Any] = []
    for blob in step.bottoms:
        memory = blob.data_memory
        seen += memory, *memory.generation
    for each in step.layer.param_blobs:
        parameter = each.parameter
        if isinstance(parameter, nn.Parameter):
            seen += parameter.data_ptr(), parameter._version
    return seen
