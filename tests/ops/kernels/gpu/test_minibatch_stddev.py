from functools import partial

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from styleforge.ops import minibatch_stddev

LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


@pytest.fixture(scope="module")
def kernel(load_kernels):
    load_kernels("minibatch_stddev")
    return partial(minibatch_stddev, impl="triton")


def check(kernel, x, *args, tolerance=1e-10):
    """Compares the result and the gradient with those of the reference in float64."""
    x = x.detach().requires_grad_()
    double = x.detach().double().requires_grad_()
    y, expected = kernel(x, *args), minibatch_stddev(double, *args)
    assert (y.shape, y.dtype) == (expected.shape, x.dtype)
    assert torch.equal(y[:, : x.shape[1]], x)
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    dy = torch.randn_like(y)
    (dx,), (wanted,) = torch.autograd.grad(y, [x], dy), torch.autograd.grad(expected, [double], dy.double())
    torch.testing.assert_close(dx.double(), wanted, rtol=tolerance, atol=tolerance)
    return y


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("num", "group", "num_channels"),
    [(4, 4, 1), (8, 4, 1), (8, 2, 3), (6, 3, 2), (4, 1, 1), (1, 4, 1), (6, 4, 1), (3, 4, 6), (12, 32, 1)],
)
def test_equals_the_reference(kernel, layout, num, group, num_channels):
    x = torch.randn(num, 6, 3, 5, dtype=torch.float64).contiguous(memory_format=LAYOUTS[layout])
    y = check(kernel, x, group, num_channels)
    assert y.is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_equals_the_reference_in_half_precision(kernel, dtype, tolerance):
    check(kernel, torch.randn(4, 3, 3, 2, dtype=dtype), tolerance=tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_reference_over_many_tiles(kernel, layout):
    x = torch.randn(4, 140, 3, 9).contiguous(memory_format=LAYOUTS[layout])
    check(kernel, x, 2, 1, tolerance=1e-5)


def test_large_values_lose_no_digits(kernel):
    x = torch.randn(4, 3, 3, 2) + 1000  # the square of the mean would swallow the variance
    torch.testing.assert_close(kernel(x)[:, 3:].double(), minibatch_stddev(x.double())[:, 3:], rtol=1e-4, atol=0)
    x = (torch.randn(4, 3, 3, 2) * 1000).half()  # squares overflow in float16
    torch.testing.assert_close(kernel(x), minibatch_stddev(x))


def test_takes_any_strides(kernel):
    wide = torch.randn(4, 8, 6, 5)
    for x in (wide[:, 1::2, ::2, 1:4], wide.permute(2, 0, 3, 1), torch.randn(4, 1, 1, 4).expand(4, 3, 5, 4)):
        check(kernel, x, tolerance=1e-5)
    x = wide.clone().requires_grad_()
    kernel(x).sum().backward()  # the gradient of a sum is an expanded number
    expected = wide.clone().requires_grad_()
    minibatch_stddev(expected).sum().backward()
    torch.testing.assert_close(x.grad, expected.grad)


@pytest.mark.parametrize("args", [(2, 1), (2, 3), (4, 1)])
def test_is_twice_differentiable(kernel, args):
    x = torch.randn(4, 3, 1, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: kernel(x, *args), (x,), fast_mode=True)
    assert gradgradcheck(lambda x: kernel(x, *args), (x,), fast_mode=True)


def test_the_gradient_is_the_same_with_and_without_a_graph(kernel):
    x = torch.randn(4, 6, 3, 2, dtype=torch.float64, requires_grad=True)
    loss = kernel(x, 2, 2).pow(3).sum()
    (with_graph,) = torch.autograd.grad(loss, [x], create_graph=True)
    (without,) = torch.autograd.grad(loss, [x])
    assert with_graph.requires_grad and not without.requires_grad
    torch.testing.assert_close(with_graph.detach(), without, rtol=0, atol=1e-12)
