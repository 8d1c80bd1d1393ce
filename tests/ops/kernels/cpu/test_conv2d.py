import pytest
import torch

from styleforge.ops.kernels.cpu import conv2d as kernel
from styleforge.ops.kernels.cpu.compiled import channels_last, pixels_first


def pytorchs(x, dy, stride, padding, k):
    weight = x.new_zeros(dy.shape[1], x.shape[1], k, k)
    arguments = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [False, True, False]
    return torch.ops.aten.convolution_backward(dy, x, weight, None, *arguments)[1]


def images(N, I, O, H, W, stride, padding, k, dtype=torch.float64):
    h, w = ((size + 2 * padding - k) // stride + 1 for size in (H, W))
    return torch.randn(N, I, H, W, dtype=dtype), torch.randn(N, O, h, w, dtype=dtype)


@pytest.mark.parametrize("channels", [(1, 1), (16, 32), (3, 40), (17, 100)])
@pytest.mark.parametrize(
    ("stride", "padding", "k", "size"),
    [
        (1, 1, 3, (5, 6)),
        (1, 0, 1, (4, 3)),
        (2, 0, 3, (7, 5)),
        (2, 0, 3, (6, 8)),  # the last row and column are not seen
        (2, 1, 3, (6, 5)),
        (3, 1, 3, (8, 8)),
        (1, 2, 3, (1, 2)),  # some places of the kernel meet zeros only
        (1, 3, 3, (2, 1)),
        (1, 1, 3, (3, 150)),  # more pixels in a row than are multiplied at a time
    ],
)
def test_is_pytorchs_gradient(stride, padding, k, size, channels):
    x, dy = images(3, *channels, *size, stride, padding, k)
    expected = pytorchs(x, dy, stride, padding, k)
    for layout in (torch.contiguous_format, torch.channels_last):
        result = kernel.weight_gradient(x.contiguous(memory_format=layout), dy, stride, padding, k)
        torch.testing.assert_close(result, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rows", [1, 2, 8])  # of six in an image
def test_goes_through_images_in_parts_with_the_same_sum(rows):
    x, dy = images(5, 4, 3, 6, 6, 1, 1, 3)
    sums = torch.zeros(3, 3, 16, 16, dtype=torch.float64)
    pixels = [pixels_first(channels_last(image)) for image in (x, dy)]
    kernel._sum(*pixels, 1, 1, rows, 16, sums.numpy())
    torch.testing.assert_close(sums[:, :, :3, :4].permute(2, 3, 0, 1), pytorchs(x, dy, 1, 1, 3), rtol=1e-11, atol=1e-11)


def test_rounding_errors_are_no_larger_than_pytorchs():
    x, dy = images(4, 64, 64, 33, 33, 2, 0, 3, torch.float32)
    exact = pytorchs(x.double(), dy.double(), 2, 0, 3)
    errors = [(function(x, dy, 2, 0, 3) - exact).square().mean() for function in (kernel.weight_gradient, pytorchs)]
    assert errors[0] <= errors[1]


def test_the_number_of_threads_changes_no_bit():
    x, dy = images(4, 20, 40, 9, 9, 2, 0, 3, torch.float32)
    threads = torch.get_num_threads()
    several = kernel.weight_gradient(x, dy, 2, 0, 3)
    torch.set_num_threads(1)
    try:
        assert torch.equal(kernel.weight_gradient(x, dy, 2, 0, 3), several)
    finally:
        torch.set_num_threads(threads)


def test_an_empty_batch_has_a_gradient_of_zero():
    assert not kernel.weight_gradient(torch.empty(0, 3, 5, 5), torch.empty(0, 2, 2, 2), 2, 0, 3).any()
