"""Every registered layer type passes every check on every one of its cases.

A case is a line in tests/layers/cases; a type without one fails `test_every_type_has_a_case`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from caffe.layers import Layer, layer_class, layer_types
from caffe.layers.base import as_tuple
from caffe.net import Net
from caffe.net.measure.gradient_check import gradients, run, slopes
from caffe.proto import caffe_pb2, text
from tests.conftest import ROOT
from tests.devices import OneDevice, fake_cuda
from tests.layers.case import Case, every
from tests.layers.cases import CASES, ELSEWHERE
from tests.replay import assert_close

FIRST = {case.type: case for case in reversed(CASES)}
"""The first case of each type."""


def cases(
    check: str, often: bool = True, every_third: bool = False
) -> Callable[[Callable[[Case], None]], Callable[[list[Case]], None]]:
    """Turn a test of one case into a test of all cases of a type, except those that skip `check`.

    Without `often` only the first case of each type runs in every run of the tests, and all in the long ones; with
    `every_third`, only those of every third type.
    """
    known, groups = set(layer_types()), defaultdict(list)
    seldom = set(FIRST) - set(sorted(FIRST)[::3]) if every_third else set()
    for case in CASES:
        if case.type in known and check not in case.skip:
            quick = (often or FIRST[case.type] is case) and case.type not in seldom
            groups[case.type if quick else f"{case.type}-others"].append(case)
    params = [
        pytest.param(group, id=name, marks=[pytest.mark.long] * name.endswith("-others"))
        for name, group in groups.items()
    ]

    def grouped(test: Callable[[Case], None]) -> Callable[[list[Case]], None]:
        @pytest.mark.parametrize("group", params)
        def run_group(group: list[Case]) -> None:
            every(group, test)

        return run_group

    return grouped


def test_every_type_has_a_case():
    own = {name for name in layer_types() if layer_class(name).__module__.startswith("caffe.")}
    tried = {case.type for case in CASES}
    assert own - tried - set(ELSEWHERE) == set(), "add a case for these types to tests/layers/cases"
    assert not tried & set(ELSEWHERE)
    assert [path for path in ELSEWHERE.values() if not (ROOT / path).is_file()] == []


def test_cases_have_names_of_their_own():
    names = [str(case) for case in CASES]
    assert len(names) == len(set(names))


@cases("gradient", often=False)
def test_gradient_is_the_slope(case):
    layer, bottoms = case.build(torch.float64), case.bottoms_as(torch.float64)
    for slope in slopes(layer, bottoms, torch.Generator().manual_seed(5)):
        assert slope.numeric == pytest.approx(slope.backward, rel=1e-5, abs=1e-7), slope.what


@cases("shape")
def test_meta_run_finds_the_shapes(case):
    layer = case.build(torch.float32)
    blobs = [blob.clone() for blob in layer.tensors]
    bottoms = [torch.empty(bottom.shape, device="meta") for bottom in case.inputs]
    found = layer.infer(*bottoms)
    assert [(top.shape, top.dtype) for top in found] == [(top.shape, top.dtype) for top in layer.dry_run(*bottoms)]
    for blob, before in zip(layer.tensors, blobs, strict=True):
        assert torch.equal(blob, before), "finding shapes changed a blob"
    assert [top.shape for top in found] == [top.shape for top in run(layer, case.bottoms_as(torch.float32))]
    assert len(found) == case.tops


@cases("dtype", often=False)
def test_single_precision_agrees_with_double(case):
    results = {}
    for dtype in (torch.float32, torch.float64):
        layer, bottoms = case.build(dtype), case.bottoms_as(dtype)
        tops = run(layer, bottoms)
        assert all(top.dtype == dtype for top in tops)
        results[dtype] = [*tops, *(grad for _, _, grad in gradients(layer, bottoms))]
    for index, (single, double) in enumerate(zip(*results.values(), strict=True)):
        assert_close(single.detach().numpy(), double.detach().numpy(), f"result {index}", rtol=1e-5, atol=2e-6)


@cases("strides", often=False)
def test_memory_layout_does_not_matter_and_bottoms_stay(case):
    plain = case.bottoms_as(torch.float64)
    strided = [other_layout(x.detach()).requires_grad_(x.requires_grad) for x in plain]
    results = []
    for bottoms in (plain, strided):
        layer = case.build(torch.float64)
        results.append([*run(layer, bottoms), *(grad for _, _, grad in gradients(layer, bottoms))])
        for x, array in zip(bottoms, case.arrays(), strict=True):
            np.testing.assert_array_equal(x.detach().numpy(), array)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-10)


def other_layout(x: Tensor) -> Tensor:
    """Return x in channels_last, or with its first axis innermost."""
    if x.dim() == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x.movedim(0, -1).contiguous().movedim(-1, 0) if x.dim() > 1 else x


@cases("module", often=False)
def test_one_piece_gives_what_the_steps_give(case):
    stepwise, fused = loaded_net(case), loaded_net(case)
    torch.manual_seed(6)
    stepwise.forward()
    torch.manual_seed(6)
    inputs = {f"b{i}": x for i, x in enumerate(case.bottoms_as(torch.float32))}
    _, blobs = fused.module(**inputs)
    tops = {f"t{i}": blobs[f"t{i}"] for i in range(case.tops)}
    for name, top in tops.items():
        assert_close(top.detach().numpy(), stepwise.blobs[name].data, name, rtol=1e-6, atol=1e-6)
    tops = {name: top for name, top in tops.items() if top.requires_grad}
    if not tops:
        return
    rng = np.random.default_rng(7)
    for name, weight in stepwise.blob_loss_weights.items():
        if name in tops and not weight:
            stepwise.blobs[name].diff[...] = rng.normal(size=tops[name].shape)
    stepwise.clear_param_diffs()
    stepwise.backward()
    wanted = {name: x for name, x in inputs.items() if x.requires_grad}
    params = [blob for blob in fused.layer_dict["layer"].tensors if blob.requires_grad]
    diffs = [torch.from_numpy(stepwise.blobs[name].diff) for name in tops]
    grads = torch.autograd.grad(list(tops.values()), [*wanted.values(), *params], diffs, materialize_grads=True)
    expected = [stepwise.blobs[name].diff for name in wanted]
    expected += [blob.grad.numpy() for blob in stepwise.layer_dict["layer"].tensors if blob.requires_grad]
    for index, (got, stored) in enumerate(zip(grads, expected, strict=True)):
        assert_close(got.numpy(), stored, f"gradient {index}", rtol=1e-6, atol=1e-6)


def loaded_net(case: Case) -> Net:
    """Return the case's net with the case's values in its blobs."""
    net = Net(text.parse(case.net(), caffe_pb2.NetParameter()), case.phase)
    for blob, value in zip(net.layer_dict["layer"].tensors, case.build(torch.float32).tensors, strict=True):
        blob.data.copy_(value.data)
    for index, array in enumerate(case.arrays()):
        net.blobs[f"b{index}"].data[...] = array
    return net


def run_on(device: str, layer: Layer, inputs: list[Tensor]) -> list[torch.Size]:
    """Run forward and, if gradients are enabled, backward on `device`; return the shapes of the tops."""

    def move(x: Tensor) -> Tensor:
        return torch.empty(x.shape, device=device, requires_grad=x.requires_grad)

    blobs = {name: move(blob) for name, blob in layer.state_dict(keep_vars=True).items()}
    bottoms = [move(x) for x in inputs]
    tops = as_tuple(torch.func.functional_call(layer, blobs, tuple(bottoms)))
    assert all(top.device.type == device for top in tops)
    roots = [top for top in tops if top.requires_grad]
    if roots and torch.is_grad_enabled():
        leaves = [x for x in [*bottoms, *blobs.values()] if x.requires_grad]
        grads = torch.autograd.grad(roots, leaves, [torch.empty_like(top) for top in roots], allow_unused=True)
        for leaf, grad in zip(leaves, grads, strict=True):
            assert grad is None or (grad.shape == leaf.shape and grad.device == leaf.device)
    return [top.shape for top in tops]


@cases("device", often=False, every_third=True)
def test_runs_on_one_device(case):
    layer, bottoms = case.build(torch.float32), case.bottoms_as(torch.float32)
    shapes = [top.shape for top in run(layer, bottoms)]
    with OneDevice():
        assert run_on("meta", layer, bottoms) == shapes
    with fake_cuda():
        assert run_on("cuda", layer, bottoms) == shapes


def test_prototxt_survives_a_round_trip():
    def check(case):
        param = text.parse(case.net(), caffe_pb2.NetParameter())
        assert text.parse(text.dumps(param), caffe_pb2.NetParameter()) == param

    every(CASES, check)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, while it traces
@pytest.mark.parametrize("family", sorted({layer_class(case.type).__module__ for case in CASES}))
def test_torch_compile_traces_it_in_one_piece(family):
    for case in CASES:
        if layer_class(case.type).__module__ != family or "compile" in case.skip:
            continue
        torch.compiler.reset()
        bottoms = case.bottoms_as(torch.float32)
        traced = torch.compile(case.build(torch.float32), backend="eager", fullgraph=True)
        for one, other in zip(run(case.build(torch.float32), bottoms), run(traced, bottoms), strict=True):
            torch.testing.assert_close(other, one, msg=str(case))
