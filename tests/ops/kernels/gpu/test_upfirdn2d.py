import itertools
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from styleforge.ops import make_filter, upfirdn2d

LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
PADDINGS = [(3, 1, 2, 0), (-2, 4, 4, -1)]
RESAMPLINGS = [
    {"padding": (-1, 2, 0, 1)},
    {"up": 2, "padding": (2, 1, 2, 1), "gain": 4.0},
    {"down": 2, "padding": 1, "flip_filter": True},
    {"up": 3, "down": 2, "padding": (2, 2, 1, 3)},
]


@pytest.fixture(scope="module")
def kernel(load_kernels):
    load_kernels("upfirdn2d")
    return partial(upfirdn2d, impl="triton")


def check(kernel, x, f, *, tolerance=1e-10, **options):
    """Compares the result and the gradient with those of the reference in float64."""
    x = x.detach().requires_grad_()
    double = x.detach().double().requires_grad_()
    y, expected = kernel(x, f, **options), upfirdn2d(double, f.double(), **options)
    assert (y.shape, y.dtype) == (expected.shape, x.dtype)
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    dy = torch.randn_like(y)
    (dx,), (wanted,) = torch.autograd.grad(y, [x], dy), torch.autograd.grad(expected, [double], dy.double())
    torch.testing.assert_close(dx.double(), wanted, rtol=tolerance, atol=tolerance)
    return y


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("padding", PADDINGS)
def test_equals_the_reference(kernel, up, down, padding):
    layouts = itertools.cycle(LAYOUTS.values())
    for shape, flip in zip([(4, 4), (2, 5)], [False, True], strict=True):
        x = torch.randn(2, 3, 6, 7, dtype=torch.float64).contiguous(memory_format=next(layouts))
        f = torch.randn(shape, dtype=torch.float64)  # without any symmetry
        check(kernel, x, f, up=up, down=down, padding=padding, flip_filter=flip, gain=1.5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_reference_in_float32(kernel, layout):
    x, f = torch.randn(2, 5, 4, 7).contiguous(memory_format=LAYOUTS[layout]), make_filter([1, 3, 3, 1])
    for options in RESAMPLINGS:
        y = check(kernel, x, f, tolerance=1e-5, **options)
        assert y.is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("options", RESAMPLINGS[1::2])
def test_equals_the_reference_in_half_precision(kernel, dtype, tolerance, options):
    x = torch.randn(2, 3, 5, 6, dtype=dtype).contiguous(memory_format=torch.channels_last)
    check(kernel, x, make_filter([1, 3, 3, 1]), tolerance=tolerance, **options)


@pytest.mark.parametrize("shape", [(1,), (4,), (1, 1), (1, 6), (7, 7)])
def test_takes_filters_of_any_shape(kernel, shape):
    x, f = torch.randn(1, 2, 5, 4, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    check(kernel, x, f, up=2, padding=6)
    check(kernel, x, f, down=3, padding=5)


def test_takes_a_filter_of_32_by_32(kernel):
    x, f = torch.randn(1, 1, 3, 2), torch.randn(32, 32)
    y = kernel(x, f, up=4, padding=(16, 15, 14, 17))
    torch.testing.assert_close(y, upfirdn2d(x, f, up=4, padding=(16, 15, 14, 17)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_reference_over_many_tiles(kernel, layout):
    x = torch.randn(1, 70, 5, 66).contiguous(memory_format=LAYOUTS[layout])
    f = torch.randn(2, 2)
    torch.testing.assert_close(kernel(x, f, padding=1), upfirdn2d(x, f, padding=1))
    x = x[:, :3]
    torch.testing.assert_close(kernel(x, f, up=2, padding=1), upfirdn2d(x, f, up=2, padding=1))


def test_takes_any_strides(kernel):
    f, wide = torch.randn(3, 3), torch.randn(2, 4, 5, 7)
    for x in (wide[:, 1::2, ::2, 3:7], wide.permute(1, 0, 3, 2), torch.randn(2, 1, 1, 4).expand(2, 3, 5, 4)):
        check(kernel, x, f, tolerance=1e-5, padding=1)
        x = x.detach().requires_grad_()
        kernel(x, f, up=2, padding=1).sum().backward()  # the gradient of a sum is an expanded number
        expected = x.detach().requires_grad_()
        upfirdn2d(expected, f, up=2, padding=1).sum().backward()
        torch.testing.assert_close(x.grad, expected.grad)
    x, turned = torch.randn(1, 2, 4, 4), torch.randn(3, 4).t()
    torch.testing.assert_close(kernel(x, turned, padding=2), upfirdn2d(x, turned, padding=2))


@pytest.mark.parametrize("options", RESAMPLINGS)
def test_is_twice_differentiable(kernel, options):
    x = torch.randn(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    f = torch.randn(3, 2, dtype=torch.float64)
    assert gradcheck(lambda x: kernel(x, f, **options), (x,), fast_mode=True)
    assert gradgradcheck(lambda x: kernel(x, f, **options), (x,), fast_mode=True)


def test_is_three_times_differentiable(kernel):
    f, derivatives = torch.randn(3, 3, dtype=torch.float64), []
    start = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    for function in (kernel, upfirdn2d):
        x = start.clone().requires_grad_()
        y = function(x, f, up=2, padding=2).pow(4).sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(y, [x], create_graph=True)
            y = gradient.square().sum()
        derivatives.append(gradient)
    torch.testing.assert_close(*derivatives)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
def test_an_empty_batch_comes_back_empty(kernel, layout, shape):
    x = torch.randn(shape).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    f = make_filter([1, 3, 3, 1])
    y = kernel(x, f, up=2, padding=(2, 1, 2, 1))
    assert y.shape == (*shape[:2], 8, 8)
    y.sum().backward()
    assert x.grad.shape == shape


def test_a_filter_that_wants_a_gradient_gets_it_from_pytorch(kernel):
    f = torch.ones(3, 3, requires_grad=True)
    kernel(torch.ones(1, 1, 4, 4), f).sum().backward()
    assert f.grad.eq(4).all()
