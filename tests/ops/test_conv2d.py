import pytest
import torch
import torch.nn.functional as F
from convolutions import CASES
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from styleforge.ops import conv2d as module
from styleforge.ops.conv2d import conv2d, conv_transpose2d
from styleforge.ops.kernels.cpu import conv2d as kernel


@pytest.fixture(params=["by the kernel", "by PyTorch"])
def way(request, monkeypatch):
    """Both ways to take the weight gradient."""
    monkeypatch.setattr(module, "WEIGHT_GRADIENT_CHANNELS", 1 if request.param == "by the kernel" else 1000)


def normal(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("stride", "padding", "k", "size"), CASES)
def test_first_and_second_derivatives_are_those_of_the_function(stride, padding, k, size):
    x, weight = normal(2, 3, *size), normal(4, 3, k, k)

    def convolve(x, weight):
        return conv2d(x, weight, stride=stride, padding=padding)

    assert gradcheck(convolve, (x, weight))
    assert gradgradcheck(convolve, (x, weight))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_derivatives_of_the_transpose_are_those_of_the_function(stride):
    y, weight = normal(2, 4, 3, 5), normal(4, 3, 3, 3)
    assert gradcheck(lambda y, w: conv_transpose2d(y, w, stride=stride), (y, weight))
    assert gradgradcheck(lambda y, w: conv_transpose2d(y, w, stride=stride), (y, weight))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("stride", "padding", "k", "size"), CASES)
def test_gradients_equal_pytorchs(stride, padding, k, size, layout):
    x = normal(3, 34, *size, dtype=torch.float32).detach().contiguous(memory_format=layout).requires_grad_()
    weight = normal(33, 34, k, k, dtype=torch.float32)
    y = F.conv2d(x, weight, stride=stride, padding=padding)
    dy = torch.randn_like(y)
    expected = torch.autograd.grad(y, [x, weight], dy)
    result = conv2d(x, weight, stride=stride, padding=padding)
    torch.testing.assert_close(result, y, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(torch.autograd.grad(result, [x, weight], dy), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_an_empty_batch_has_gradients_of_zero():
    x, weight = normal(0, 3, 4, 4), normal(2, 3, 3, 3)
    conv2d(x, weight, padding=1).sum().backward()
    assert x.grad.shape == x.shape
    assert not weight.grad.any()


def test_narrow_ones_without_gradients_are_pytorchs_functions_bit_for_bit():
    x, weight = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
    assert torch.equal(conv2d(x, weight, padding=1), F.conv2d(x, weight, padding=1))
    assert torch.equal(conv_transpose2d(conv2d(x, weight), weight), F.conv_transpose2d(F.conv2d(x, weight), weight))


@pytest.mark.parametrize("channels", [3, 256])
@pytest.mark.parametrize("size", [(16, 16), (17, 17), (17, 16)], ids=str)
def test_results_may_be_overwritten(channels, size):
    x, weight = torch.randn(1, channels, *size), torch.randn(channels, channels, 3, 3).requires_grad_()
    for function, padding in ((conv2d, {"padding": 1}), (conv_transpose2d, {})):
        (want,) = torch.autograd.grad((function(x, weight, **padding) * 2).square().sum(), weight)
        (got,) = torch.autograd.grad(function(x, weight, **padding).mul_(2).square().sum(), weight)
        torch.testing.assert_close(got, want)


def test_weights_meet_the_convolution_in_the_layout_of_the_image(monkeypatch):
    met = []
    quick = module._quick_convolve
    monkeypatch.setattr(
        module, "_quick_convolve", lambda x, weight, *args: met.append(weight) or quick(x, weight, *args)
    )
    x, weight = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
    conv2d(x, weight)
    conv2d(x.contiguous(memory_format=torch.channels_last), weight)
    assert [w.is_contiguous(memory_format=torch.channels_last) for w in met] == [False, True]


def test_batched_gradients_are_those_one_at_a_time():
    x, weight = normal(2, 3, 5, 5), normal(4, 3, 3, 3)
    y = conv_transpose2d(conv2d(x.contiguous(memory_format=torch.channels_last), weight, padding=1), weight)
    dy = torch.randn(3, *y.shape, dtype=y.dtype)
    batched = torch.autograd.grad(y, (x, weight), dy, is_grads_batched=True, retain_graph=True)
    single = [torch.autograd.grad(y, (x, weight), d, retain_graph=True) for d in dy]
    for got, *want in zip(batched, *single, strict=True):
        torch.testing.assert_close(got, torch.stack(want))


def test_a_gradient_of_the_image_alone_takes_no_gradient_of_the_weight(monkeypatch):
    taken = []
    forward = module._WeightGradient.forward
    monkeypatch.setattr(module._WeightGradient, "forward", lambda *args: taken.append(1) or forward(*args))
    x, weight = normal(2, 3, 5, 5), normal(4, 3, 3, 3)
    y = conv_transpose2d(conv2d(x, weight, padding=1), weight)
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    assert not taken
    dx.square().sum().backward()
    assert taken


def test_forward_mode_and_autocast_are_left_to_pytorch():
    x, weight = torch.randn(2, 256, 16, 16), torch.randn(256, 256, 3, 3)
    tangent = torch.randn_like(x)
    with forward_ad.dual_level(), torch.no_grad():
        y = forward_ad.unpack_dual(conv2d(forward_ad.make_dual(x, tangent), weight, padding=1)).tangent
    assert torch.equal(y, F.conv2d(tangent, weight, padding=1))
    weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        conv2d(x, weight, padding=1).float().sum().backward()
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize(("channels", "taken"), [((32, 32), True), ((31, 32), False), ((32, 31), False)])
def test_weight_gradients_take_the_kernel_from_32_channels_on(channels, taken, monkeypatch):
    seen = []
    monkeypatch.setattr(kernel, "weight_gradient", lambda *args: seen.append(1) or torch.zeros(*channels, 3, 3))
    weight = torch.randn(*channels, 3, 3, requires_grad=True)
    conv2d(torch.randn(1, channels[1], 9, 9), weight, stride=2).sum().backward()
    assert bool(seen) == taken
