import pytest
import torch
from convolutions import CASES, weight_gradient_of_pytorch

from styleforge.ops.kernels.cpu import conv2d as kernel
from styleforge.ops.kernels.cpu.compiled import channels_last, pixels_first


def images(N, I, O, H, W, stride, padding, k, dtype=torch.float64):
    h, w = ((size + 2 * padding - k) // stride + 1 for size in (H, W))
    return torch.randn(N, I, H, W, dtype=dtype), torch.randn(N, O, h, w, dtype=dtype)


@pytest.mark.parametrize("channels", [(1, 1), (16, 32), (3, 40), (17, 100)])
@pytest.mark.parametrize(
    ("stride", "padding", "k", "size"),
    [
        *CASES,
        (1, 2, 3, (1, 2)),  # some places of the kernel meet zeros only
        (1, 3, 3, (2, 1)),
        (1, 1, 3, (3, 150)),  # more pixels in a row than are multiplied at a time
    ],
)
def test_is_pytorchs_gradient(stride, padding, k, size, channels):
    x, dy = images(3, *channels, *size, stride, padding, k)
    expected = weight_gradient_of_pytorch(x, dy, padding, stride=stride, k=k)
    for layout in (torch.contiguous_format, torch.channels_last):
        result = kernel.weight_gradient(x.contiguous(memory_format=layout), dy, stride, padding, k)
        torch.testing.assert_close(result, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rows", [1, 2, 8])  # of six in an image
def test_goes_through_images_in_parts_with_the_same_sum(rows):
    x, dy = images(5, 4, 3, 6, 6, 1, 1, 3)
    sums = torch.zeros(3, 3, 16, 16, dtype=torch.float64)
    pixels = [pixels_first(channels_last(image)) for image in (x, dy)]
    kernel._sum_pixels(*pixels, 1, 1, rows, 16, sums.numpy())
    torch.testing.assert_close(
        sums[:, :, :3, :4].permute(2, 3, 0, 1), weight_gradient_of_pytorch(x, dy, 1), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize(("k", "stride", "size"), [(3, 2, 33), (1, 1, 32), (3, 1, 8)])
def test_rounding_errors_are_about_pytorchs_or_smaller(k, stride, size):
    padding = k // 2 if stride == 1 else 0
    x, dy = images(4, 64, 64, size, size, stride, padding, k, torch.float32)
    exact = weight_gradient_of_pytorch(x.double(), dy.double(), padding, stride=stride, k=k)
    ours = kernel.weight_gradient(x, dy, stride, padding, k)
    theirs = weight_gradient_of_pytorch(x, dy, padding, stride=stride, k=k)
    assert (ours - exact).square().mean().sqrt() <= 1.5 * (theirs - exact).square().mean().sqrt()


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


def test_other_dtypes_and_channels_never_reach_the_kernel():
    with pytest.raises(AssertionError):
        kernel.weight_gradient(torch.ones(1, 3, 5, 5), torch.ones(1, 2, 3, 3, dtype=torch.float64), 1, 0, 3)
