import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from styleforge.ops import demodulation_coefficients, make_filter, modulated_conv2d, upfirdn2d

F_1331 = make_filter([1, 3, 3, 1])
CASES = list(itertools.product(["factored", "grouped"], [True, False], [1, 2], [1, 3]))


def one_by_one(x, weight, styles, demodulate, up):
    """Eq. 1 and 3, and a convolution, sample by sample and output map by output map."""
    k = weight.shape[-1]
    results = []
    for features, style in zip(x, styles, strict=True):
        kernel = weight.clone()
        for i, s in enumerate(style):
            kernel[:, i] *= s
        if demodulate:
            kernel = torch.stack([w / torch.sqrt((w**2).sum() + 1e-8) for w in kernel])
        if up == 1:
            results.append(F.conv2d(features[None], kernel, padding=k // 2))
        else:
            pad = k // 2
            large = upfirdn2d(features[None], F_1331, up=2, padding=(2 + pad, 1 + pad, 2 + pad, 1 + pad), gain=4)
            results.append(F.conv2d(large, kernel.flip([2, 3])))
    return torch.cat(results)


@pytest.mark.parametrize(("impl", "demodulate", "up", "k"), CASES)
def test_equals_one_convolution_per_sample(impl, demodulate, up, k):
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    weight, styles = torch.randn(2, 4, k, k, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    y = modulated_conv2d(x, weight, styles, demodulate=demodulate, up=up, resample_filter=F_1331, impl=impl)
    assert y.shape == (3, 2, 5 * up, 6 * up)
    torch.testing.assert_close(y, one_by_one(x, weight, styles, demodulate, up))


@pytest.mark.parametrize(("demodulate", "up", "k"), list(itertools.product([True, False], [1, 2], [1, 3])))
def test_both_implementations_are_one_function(demodulate, up, k):
    tensors = [torch.randn(shape, requires_grad=True) for shape in ([4, 8, 8, 8], [6, 8, k, k], [4, 8])]
    results, gradients = [], []
    for impl in ("factored", "grouped"):
        y = modulated_conv2d(*tensors, demodulate=demodulate, up=up, resample_filter=F_1331, impl=impl)
        results.append(y)
        gradients.append(torch.autograd.grad(y.square().sum(), tensors))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)
    for a, b in zip(*gradients, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm() + 1e-4


@pytest.mark.parametrize(("impl", "demodulate", "up", "k"), CASES)
def test_noise_is_added_to_the_result(impl, demodulate, up, k):
    x, weight, styles = torch.randn(3, 4, 5, 6), torch.randn(2, 4, k, k), torch.randn(3, 4)
    options = {"demodulate": demodulate, "up": up, "resample_filter": F_1331, "impl": impl}
    y = modulated_conv2d(x, weight, styles, **options)
    for num in (1, 3):
        noise = torch.randn(num, 1, 5 * up, 6 * up)
        z = modulated_conv2d(x, weight, styles, noise=noise, **options)
        torch.testing.assert_close(z, y + noise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("impl", "demodulate", "up", "k"), CASES)
def test_is_twice_differentiable(impl, demodulate, up, k):
    x = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, k, k, dtype=torch.float64, requires_grad=True)
    styles = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(1, 1, 2 * up, 3 * up, dtype=torch.float64, requires_grad=True)

    def function(x, weight, styles, noise):
        options = {"demodulate": demodulate, "up": up, "resample_filter": F_1331, "impl": impl}
        return modulated_conv2d(x, weight, styles, noise=noise, **options)

    assert gradcheck(function, (x, weight, styles, noise))
    assert gradgradcheck(function, (x, weight, styles, noise), atol=1e-4)


@pytest.mark.parametrize("impl", ["factored", "grouped"])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
def test_demodulation_brings_unit_variance_back(impl, scale):
    x = torch.randn(4, 32, 64, 64)
    weight, styles = torch.randn(8, 32, 3, 3) * 0.3, torch.randn(4, 32) * scale
    y = modulated_conv2d(x, weight, styles, impl=impl)[:, :, 1:-1, 1:-1]  # zeros come in at the border
    assert (y.var(dim=[2, 3]) - 1).abs().max() < 0.05  # in every feature map of every sample


def test_demodulation_coefficients_follow_equation_3():
    weight, styles = torch.randn(5, 4, 3, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    for n, o in itertools.product(range(2), range(5)):
        power = sum((styles[n, i] * weight[o, i, y, x]) ** 2 for i in range(4) for y in range(3) for x in range(3))
        assert demodulation_coefficients(weight, styles)[n, o].item() == pytest.approx(float((power + 1e-8) ** -0.5))


def test_styles_of_zero_give_zeros():
    for impl, dtype in itertools.product(["factored", "grouped"], [torch.float32, torch.bfloat16]):
        x, weight = torch.randn(2, 3, 4, 4, dtype=dtype), torch.randn(5, 3, 3, 3)
        assert modulated_conv2d(x, weight, torch.zeros(2, 3), impl=impl).abs().max() == 0


@pytest.mark.parametrize("impl", ["factored", "grouped"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("parameters", ["as features", "float32"])
def test_keeps_the_dtype_of_the_features(impl, dtype, parameters):
    x, weight, styles = (torch.randn(shape, dtype=torch.float64) for shape in ([2, 16, 8, 8], [8, 16, 3, 3], [2, 16]))
    expected = modulated_conv2d(x, weight, styles, up=2, resample_filter=F_1331)
    low = dtype if parameters == "as features" else torch.float32
    y = modulated_conv2d(x.to(dtype), weight.to(low), styles.to(low), up=2, resample_filter=F_1331, impl=impl)
    assert y.dtype == dtype
    assert (y.double() - expected).norm() < {torch.bfloat16: 1e-2, torch.float16: 2e-3}.get(
        dtype, 1e-6
    ) * expected.norm()


@pytest.mark.parametrize("impl", ["factored", "grouped"])
def test_weights_and_styles_may_differ_in_dtype(impl):
    x, weight, styles = torch.randn(2, 3, 4, 4), torch.randn(5, 3, 3, 3), torch.randn(2, 3)
    y = modulated_conv2d(x.bfloat16(), weight, styles.bfloat16(), impl=impl)
    assert y.dtype == torch.bfloat16
    assert (y.float() - modulated_conv2d(x, weight, styles)).norm() < 2e-2 * y.float().norm()


def test_bad_arguments_are_refused(refuses):
    x, weight, styles = torch.zeros(2, 3, 4, 4), torch.zeros(5, 3, 3, 3), torch.zeros(2, 3)
    with refuses("x", "[2, 4, 4, 4]", "3 input channels"):
        modulated_conv2d(torch.zeros(2, 4, 4, 4), weight, styles)
    with refuses("styles", "[2, 4]", "[2, 3]", "one scale per sample"):
        modulated_conv2d(x, weight, torch.zeros(2, 4))
    with refuses("styles", "[1, 3]", "[2, 3]"):
        modulated_conv2d(x, weight, torch.zeros(1, 3))
    with refuses("weight", "[5, 3, 3]", "[O, I, k, k]"):
        modulated_conv2d(x, weight[..., 0], styles)
    with refuses("weight", "[5, 3, 1, 3]"):
        modulated_conv2d(x, weight[:, :, :1], styles)
    with refuses("'fast'", "factored"):
        modulated_conv2d(x, weight, styles, impl="fast")


@pytest.mark.parametrize("impl", ["factored", "grouped"])
def test_an_empty_batch_makes_an_empty_batch(impl):
    y = modulated_conv2d(torch.zeros(0, 3, 4, 4), torch.randn(5, 3, 3, 3), torch.zeros(0, 3), impl=impl)
    assert y.shape == (0, 5, 4, 4)
