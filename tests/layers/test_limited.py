"""`limited` clamps values to a range. Its gradient equals that of torch's clamp, also at the limits."""

from __future__ import annotations

import pytest
import torch

from caffe.layers.support.limited import limited
from caffe.net.engines.denormals import FlushedDenormals


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.5, 0.0), (0.1, 0.1), (-1e30, 1e30)])
def test_the_gradient_is_the_one_of_clamp(low, high, dtype):
    near = torch.tensor([low, high, 0.0, -0.0, 6.0], dtype=dtype)
    steps = (torch.nextafter(near, torch.tensor(end, dtype=dtype)) for end in (-1e38, 1e38))
    values = torch.cat([near, *steps, torch.linspace(-8, 8, 99, dtype=dtype)])
    values = values[values.abs() > torch.finfo(dtype).tiny] if low == 0 or high == 0 else values
    values = torch.cat([values, torch.zeros(1, dtype=dtype)])
    mine, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    with FlushedDenormals():
        limited(mine, low, high).sum().backward()
        theirs.clamp(low, high).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=0)
    assert torch.equal(limited(values, low, high), values.clamp(low, high))
