import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from styleforge.ops import bias_act
from styleforge.ops.kernels.cpu import bias_act as kernel

TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}
OPTIONS = [
    {"act": "lrelu"},
    {"act": "lrelu", "gain": 0.5, "clamp": 0.3},
    {"act": "relu", "clamp": 1.0},
    {"act": "linear"},
    {"act": "linear", "gain": 3.0, "clamp": 2.0},
]


def features(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype).to(memory_format=torch.channels_last)


def extras(shape, which, dtype=torch.float32):
    N, C, H, W = shape
    every = {
        "scale": torch.randn(N, C, dtype=dtype),
        "noise": torch.randn(N, 1, H, W, dtype=dtype),
        "bias": torch.randn(C, dtype=dtype),
    }
    return {name: every[name] for name in which}


def results(x, more, options, impl):
    tensors = [t.clone().requires_grad_() for t in (x, *more.values())]
    y = bias_act(tensors[0], **dict(zip(more, tensors[1:], strict=True)), **options, impl=impl)
    torch.manual_seed(1)
    return [y, *torch.autograd.grad(y, tensors, torch.randn(y.shape, dtype=y.dtype))]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(2, 3, 9, 15), (3, 17, 8, 8), (1, 1, 1, 1), (0, 4, 5, 5)])
def test_function_and_gradients_are_those_of_the_reference(shape, dtype, options):
    names = ("scale", "noise", "bias")
    for which in itertools.chain.from_iterable(itertools.combinations(names, k) for k in range(4)):
        x, more = features(*shape, dtype=dtype), extras(shape, which, dtype)
        expected = results(x, more, options, "reference")
        for ours, theirs in zip(results(x, more, options, "numba"), expected, strict=True):
            torch.testing.assert_close(ours, theirs, **TOLERANCE[dtype])


def test_one_noise_map_may_serve_all_samples():
    x, noise = features(3, 5, 9, 7), torch.randn(1, 1, 9, 7)
    expected = results(x, {"noise": noise}, {"act": "lrelu"}, "reference")
    for ours, theirs in zip(results(x, {"noise": noise}, {"act": "lrelu"}, "numba"), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_any_memory_layout_will_do():
    x, bias = torch.randn(4, 6, 10, 10), torch.randn(6)
    for view in (x, x[:, ::2, 1:, ::3], x.transpose(2, 3), x.expand(4, 6, 10, 10)[:1].expand(3, 6, 10, 10)):
        more = {"bias": bias[: view.shape[1]]}
        expected = results(view, more, {"act": "lrelu"}, "reference")
        for ours, theirs in zip(results(view, more, {"act": "lrelu"}, "numba"), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_overwrites_its_input_where_that_is_allowed():
    x, bias = features(2, 5, 6, 6), torch.randn(5)
    expected = bias_act(x, bias, act="lrelu", impl="reference")
    kept = x.clone(memory_format=torch.preserve_format)
    constants = {"slope": 0.2, "gain": 2**0.5, "clamp": None}
    torch.testing.assert_close(kernel.forward(x, None, None, bias, **constants), expected)
    assert torch.equal(x, kept)
    y = kernel.forward(x, None, None, bias, **constants, inplace=True)
    assert y.data_ptr() == x.data_ptr()
    torch.testing.assert_close(x, expected)


@pytest.mark.parametrize("act", ["linear", "lrelu", "relu"])
def test_nan_and_infinity_go_through_as_through_pytorchs_operations(act):
    x = features(1, 3, 1, 2)
    x[0, :, 0] = torch.tensor([[math.nan, math.inf], [-math.inf, 0.0], [-0.0, -1.0]])
    for clamp in (None, 4.0):
        ours, theirs = (bias_act(x, act=act, clamp=clamp, gain=2.0, impl=impl) for impl in ("numba", "reference"))
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_a_gradient_of_infinity_stops_at_the_clamp():
    x = features(1, 2, 1, 2).requires_grad_()
    with torch.no_grad():
        x[0, 0] = 5
    for impl in ("numba", "reference"):
        (dx,) = torch.autograd.grad(bias_act(x, clamp=2.0, impl=impl), x, torch.full(x.shape, math.inf))
        assert (dx[0, 0] == 0).all()


def test_is_twice_differentiable():
    shape = (2, 3, 2, 3)
    more = extras(shape, ("scale", "noise", "bias"), torch.float64)
    tensors = [t.requires_grad_() for t in (features(*shape, dtype=torch.float64), *more.values())]

    def function(x, scale, noise, bias):
        return bias_act(x, bias, scale=scale, noise=noise, act="lrelu", clamp=3.0, impl="numba")

    assert gradcheck(function, tensors)
    assert gradgradcheck(function, tensors)


def test_what_the_kernel_cannot_take_is_refused(refuses):
    x = features(2, 4, 3, 3)
    for arguments in (
        {"x": x.bfloat16()},
        {"x": x.flatten(2)},
        {"x": x.to("meta")},
        {"x": x, "noise": torch.randn(2, 4, 3, 3)},
    ):
        with refuses("'numba'", "'auto' always works"):
            bias_act(**arguments, impl="numba")
