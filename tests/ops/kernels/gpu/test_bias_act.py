import itertools
import math

import pytest
import torch
import torch.nn.functional as F

LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
ALL = (True, True, True, True)


@pytest.fixture(scope="module")
def kernels(load_kernels):
    return load_kernels("bias_act")


def reference(x, scale, noise, bias, *, slope, gain, clamp):
    """The formula, in differentiable PyTorch."""
    columns = [1] * (x.ndim - 2)
    x = x if scale is None else x * scale.reshape(*scale.shape, *columns)
    x = x if noise is None else x + noise
    x = x if bias is None else x + bias.reshape(-1, *columns)
    x = (F.leaky_relu(x, slope) if slope > 0 else torch.relu(x)) * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def inputs(shape, dtype=torch.float64, noise=(1, 1), layout="NCHW"):
    """Random x, scale, noise and bias, the noise over ``noise`` samples and channels."""
    N, C, *size = shape
    x = torch.randn(shape, dtype=dtype)
    x = x.contiguous(memory_format=LAYOUTS[layout]) if x.ndim == 4 else x
    scale, bias = torch.randn(N, C, dtype=dtype), torch.randn(C, dtype=dtype)
    return [x, scale, torch.randn(*noise, *size, dtype=dtype), bias]


def check(kernels, tensors, *, tolerance, slope=0.2, gain=2**0.5, clamp=None, dy=None):
    """Compares the result and all gradients with those of the reference in float64."""
    options = {"slope": slope, "gain": gain, "clamp": clamp}
    doubles = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    expected = reference(*doubles, **options)
    x, scale, noise, _ = tensors
    y = kernels.forward(*tensors, **options)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    torch.testing.assert_close(y.double(), expected.detach(), rtol=tolerance, atol=tolerance)
    dy = torch.randn_like(y) if dy is None else dy
    needs = tuple(t is not None for t in tensors)
    noise_shape = None if noise is None else noise.shape
    gradients = kernels.backward(dy, y, x, scale, noise_shape, **options, needs=needs)
    wanted = iter(torch.autograd.grad(expected, [t for t in doubles if t is not None], dy.double()))
    for tensor, gradient in zip(tensors, gradients, strict=True):
        if tensor is None:
            assert gradient is None
            continue
        want = next(wanted)
        assert gradient.shape == want.shape
        # A sum is as exact as its terms are; the largest of its results tells their size.
        size = want.abs().max().item() + 1
        torch.testing.assert_close(gradient.double(), want, rtol=tolerance, atol=tolerance * size)
    assert gradients[0].dtype == x.dtype and gradients[0].stride() == y.stride()
    return y


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=3)))
def test_equals_the_formula_with_any_arguments_missing(kernels, layout, present):
    x, *rest = inputs((3, 5, 7, 6), layout=layout, noise=(3, 1))
    tensors = [x, *(t if there else None for t, there in zip(rest, present, strict=True))]
    y = check(kernels, tensors, tolerance=1e-10, clamp=1.5)
    assert y.is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("slope", [1.0, 0.2, 0.0])
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_equals_the_formula_in_float32(kernels, layout, slope, clamp):
    tensors = inputs((2, 5, 3, 7), torch.float32, layout=layout)
    check(kernels, tensors, tolerance=1e-5, slope=slope, gain=1.3, clamp=clamp)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_equals_the_formula_in_half_precision(kernels, dtype, tolerance):
    tensors = inputs((2, 5, 3, 7), dtype, layout="NHWC")
    check(kernels, tensors, tolerance=tolerance)
    check(kernels, [tensors[0], *(t.float() for t in tensors[1:])], tolerance=tolerance)  # mixed dtypes


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("noise", [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_the_noise_spreads_over_samples_and_channels(kernels, layout, noise):
    check(kernels, inputs((2, 3, 5, 4), noise=noise, layout=layout), tolerance=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("programs", [1, 10**6])
def test_images_of_many_tiles_sum_up_in_any_split(kernels, monkeypatch, layout, programs):
    monkeypatch.setattr(kernels, "MANY_PROGRAMS", programs)
    tensors = inputs((2, 140, 5, 27), torch.float32, noise=(1, 1), layout=layout)
    check(kernels, tensors, tolerance=1e-5)


def test_takes_vectors(kernels):
    x, scale, _, bias = inputs((3, 70))
    check(kernels, [x, None, None, bias], tolerance=1e-10)
    check(kernels, [x, scale, None, bias], tolerance=1e-10)


def test_takes_any_strides(kernels):
    _, scale, noise, bias = inputs((2, 3, 5, 4))
    wide = torch.randn(2, 6, 10, 9, dtype=torch.float64)
    sliced, turned = wide[:, 1::2, ::2, 3:7], torch.randn(5, 2, 4, 3, dtype=torch.float64).permute(1, 3, 0, 2)
    expanded = torch.randn(2, 1, 1, 4, dtype=torch.float64).expand(2, 3, 5, 4)
    for x in (sliced, turned, expanded):
        check(kernels, [x, scale, noise, bias], tolerance=1e-10)
    for dy in (sliced, turned, torch.ones(1, dtype=torch.float64).expand(2, 3, 5, 4)):
        check(kernels, [turned, scale, noise, bias], tolerance=1e-10, dy=dy)
    strided = [wide[0, 0, :2, :3].t().contiguous().t(), expanded[:1, :1], wide[0, 0, :6:2, 1]]
    check(kernels, [sliced, *strided], tolerance=1e-10)


def test_single_pixels_keep_both_layouts(kernels):
    x = torch.randn(2, 3, 1, 1)
    for layout in LAYOUTS.values():
        like = torch.empty(2, 3, 1, 1).to(memory_format=layout)
        y = kernels.forward(x.to(memory_format=layout), None, None, None, slope=0.2, gain=1.0, clamp=None)
        assert y.stride() == like.stride()


def test_zero_has_the_slope_of_negative_values_as_in_pytorch(kernels):
    x = torch.tensor([[0.0, -0.0, 1.0, -1.0]], requires_grad=True)
    for slope in (0.2, 0.0):
        options = {"slope": slope, "gain": 1.0, "clamp": None}
        expected = reference(x, None, None, None, **options)
        expected.sum().backward()
        y = kernels.forward(x.detach(), None, None, None, **options)
        dx, *_ = kernels.backward(torch.ones(1, 4), y, None, None, None, **options, needs=(True, False, False, False))
        assert torch.equal(y, expected) and torch.equal(dx, x.grad)
        x.grad = None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_clamped_values_have_no_gradient(kernels, dtype):
    # 0.7 is none of these dtypes' numbers: the result lies beside it.
    x = torch.tensor([[-9.0, -0.5, 0.0, 0.5, 9.0]], dtype=dtype)
    options = {"slope": 1.0, "gain": 1.0, "clamp": 0.7}
    y = kernels.forward(x, None, None, None, **options)
    dx, *_ = kernels.backward(torch.ones_like(x), y, None, None, None, **options, needs=(True, False, False, False))
    assert torch.equal(y, x.clamp(-0.7, 0.7))
    assert dx.tolist() == [[0.0, 1.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize("slope", [1.0, 0.2, 0.0])
def test_shows_what_is_no_number(kernels, slope):
    x = torch.tensor([[math.nan, math.inf, -math.inf]])
    y = kernels.forward(x, None, None, None, slope=slope, gain=1.0, clamp=3.0)
    assert y[0, 0].isnan()
    assert y[0, 1:].tolist() == [3.0, 0.0 if slope == 0 else -3.0]


def test_returns_the_gradients_that_are_needed(kernels):
    x, scale, noise, bias = inputs((2, 3, 2, 2))
    options = {"slope": 0.2, "gain": 1.0, "clamp": None}
    y = kernels.forward(x, scale, noise, bias, **options)
    everything = kernels.backward(y, y, x, scale, noise.shape, **options, needs=ALL)
    for i in range(4):
        needs = tuple(i == j for j in range(4))
        some = kernels.backward(y, y, x, scale, noise.shape, **options, needs=needs)
        assert [g is not None for g in some] == list(needs)
        assert torch.equal(some[i], everything[i])


def test_gives_the_same_bits_again(kernels):
    x, scale, noise, bias = inputs((2, 70, 9, 8), torch.float32)
    options = {"slope": 0.2, "gain": 1.0, "clamp": None}
    y = kernels.forward(x, scale, noise, bias, **options)
    first, second = (kernels.backward(x, y, x, scale, noise.shape, **options, needs=ALL) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (0, 3), (2, 3, 0, 4)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_empty_images_come_back_empty_with_gradients_of_zero(kernels, shape, per_channel):
    tensors = inputs(shape, torch.float32, noise=(1, 3 if per_channel else 1))
    options = {"slope": 0.2, "gain": 1.0, "clamp": 1.0}
    y = kernels.forward(*tensors, **options)
    gradients = kernels.backward(y, y, tensors[0], tensors[1], tensors[2].shape, **options, needs=ALL)
    assert y.shape == shape
    for tensor, gradient in zip(tensors, gradients, strict=True):
        assert gradient.shape == tensor.shape and not gradient.any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_overwrites_its_input_where_that_is_allowed(kernels, layout):
    x, scale, noise, bias = inputs((2, 5, 9, 7), layout=layout)
    options = {"slope": 0.2, "gain": 2**0.5, "clamp": 1.0}
    expected, kept = kernels.forward(x, scale, noise, bias, **options), x.clone()
    assert torch.equal(x, kept)
    y = kernels.forward(x, scale, noise, bias, **options, inplace=True)
    assert y is x
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
