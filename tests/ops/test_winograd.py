import pytest
import torch
import torch.nn.functional as F
from convolutions import weight_gradient_of_pytorch

from styleforge.ops import winograd
from styleforge.ops.conv2d import conv2d, conv_transpose2d


@pytest.fixture
def everywhere(monkeypatch):
    """The way of this module is taken for networks of any size."""
    for name in ("MIN_CHANNELS", "MIN_PIXELS"):
        monkeypatch.setattr(winograd, name, 0)


@pytest.mark.parametrize(("size", "padding"), [((5, 6), 0), ((7, 3), 1), ((4, 4), 2), ((1, 2), 2)])
def test_the_three_functions_are_pytorchs(size, padding):
    x, weight = torch.randn(3, 4, *size, dtype=torch.float64), torch.randn(5, 4, 3, 3, dtype=torch.float64)
    y = F.conv2d(x, weight, padding=padding)
    dy = torch.randn_like(y)
    torch.testing.assert_close(winograd.correlate(x, weight, padding), y, rtol=1e-12, atol=1e-12)
    transposed = F.conv_transpose2d(dy, weight, padding=padding)
    torch.testing.assert_close(winograd.correlate_transposed(dy, weight, padding), transposed, rtol=1e-12, atol=1e-12)
    expected = weight_gradient_of_pytorch(x, dy, padding)
    torch.testing.assert_close(winograd.weight_gradient(x, dy, padding), expected, rtol=1e-12, atol=1e-12)


def root_mean_square(x):
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("channels", [32, 256])
def test_rounding_errors_are_at_most_about_three_times_those_of_pytorch(channels, positive):
    x = torch.randn(2, channels, 24, 24).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3)
    x = F.leaky_relu(x, 0.2) if positive else x
    dy = torch.randn_like(x)
    for ours, theirs in (
        (lambda: winograd.correlate(x, weight, 1), lambda x, weight, dy: F.conv2d(x, weight, padding=1)),
        (
            lambda: winograd.correlate_transposed(dy, weight, 1),
            lambda x, weight, dy: F.conv_transpose2d(dy, weight, padding=1),
        ),
        (lambda: winograd.weight_gradient(x, dy, 1), lambda x, weight, dy: weight_gradient_of_pytorch(x, dy, 1)),
    ):
        exact = theirs(x.double(), weight.double(), dy.double())
        assert root_mean_square(ours() - exact) <= 3.5 * root_mean_square(theirs(x, weight, dy) - exact)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("channels", [(32, 33), (256, 260)])
def test_convolutions_take_this_way_and_give_pytorchs_gradients(channels, layout, monkeypatch):
    taken = []
    for name in ("correlate", "correlate_transposed", "weight_gradient"):
        function = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *args, f=function, n=name: taken.append(n) or f(*args))
    x = torch.randn(2, channels[0], 16, 17).to(memory_format=layout).requires_grad_()
    weight = torch.randn(channels[1], channels[0], 3, 3, requires_grad=True)
    y = F.conv2d(x, weight, padding=1)
    dy = torch.randn_like(y)
    expected = torch.autograd.grad(y, [x, weight], dy)
    result = conv2d(x, weight, padding=1)
    torch.testing.assert_close(result, y, rtol=1e-4, atol=1e-3)
    for ours, theirs in zip(torch.autograd.grad(result, [x, weight], dy), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    assert sorted(taken) == ["correlate", "correlate_transposed", "weight_gradient"]


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.usefixtures("everywhere")
def test_first_and_second_derivatives_are_those_of_the_function(padding):
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: conv2d(x, w, padding=padding), (x, weight))
    assert torch.autograd.gradgradcheck(lambda x, w: conv2d(x, w, padding=padding), (x, weight))


@pytest.mark.usefixtures("everywhere")
def test_first_and_second_derivatives_of_the_transpose_are_those_of_the_function():
    y = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv_transpose2d, (y, weight))
    assert torch.autograd.gradgradcheck(conv_transpose2d, (y, weight))


@pytest.mark.usefixtures("everywhere")
def test_an_empty_batch_has_gradients_of_zero():
    x, weight = torch.randn(0, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 3, 3, requires_grad=True)
    conv2d(x, weight, padding=1).sum().backward()
    assert x.grad.shape == x.shape
    assert not weight.grad.any()


@pytest.mark.parametrize(
    ("shape", "weight", "stride", "padding"),
    [
        ((1, 512, 64, 64), (512, 512, 3, 3), 2, 1),
        ((1, 512, 64, 64), (512, 512, 1, 1), 1, 0),
        ((1, 512, 64, 64), (512, 512, 3, 3), 1, 3),
        ((1, 512, 64, 64), (3, 512, 3, 3), 1, 1),
        ((1, 512, 64, 64), (512, 512, 3, 3), 1, -1),
        ((1, 32, 64, 64), (31, 32, 3, 3), 1, 1),
        ((1, 31, 64, 64), (32, 31, 3, 3), 1, 1),
        ((1, 512, 15, 17), (512, 512, 3, 3), 1, 1),
        ((512, 64, 64), (512, 512, 3, 3), 1, 1),
    ],
)
def test_other_convolutions_do_not_take_this_way(shape, weight, stride, padding):
    assert not winograd.pays(torch.empty(shape, device="meta"), torch.empty(weight, device="meta"), stride, padding)


def test_low_precision_does_not_take_this_way():
    x, weight = torch.empty(1, 512, 64, 64, device="meta"), torch.empty(512, 512, 3, 3, device="meta")
    assert winograd.pays(x, weight, 1, 1)
    assert not winograd.pays(x.bfloat16(), weight.bfloat16(), 1, 1)
    assert not winograd.pays(x, weight.double(), 1, 1)


def test_the_number_of_images_does_not_choose_the_way():
    weight = torch.empty(512, 512, 3, 3, device="meta")
    for size, taken in ((16, True), (8, False)):
        for num in (0, 1, 64):
            assert winograd.pays(torch.empty(num, 512, size, size, device="meta"), weight, 1, 1) == taken


@pytest.mark.parametrize("channels", [16, 48, 512])
def test_channels_that_do_not_fit_are_refused_by_pytorch(channels):
    x = torch.randn(1, 32, 32, 32)
    with pytest.raises(RuntimeError, match="channels"):
        conv2d(x, torch.randn(64, channels, 3, 3), padding=1)
    with pytest.raises(RuntimeError, match="channels"):
        conv_transpose2d(x, torch.randn(channels, 64, 3, 3))
    with pytest.raises(RuntimeError, match="negative padding"):
        conv2d(x, torch.randn(32, 32, 3, 3), padding=-1)
