import pytest
import torch
import torch.nn.functional as F
from convolutions import weight_gradient_of_pytorch

from styleforge.ops.kernels.cpu import winograd as kernel

CASES = [
    ((5, 6), 0),
    ((4, 4), 0),
    ((7, 3), 1),
    ((1, 2), 1),
    ((4, 4), 2),
    ((1, 2), 2),
    ((3, 70), 1),
    ((30, 34), 1),
]  # size, padding


@pytest.fixture(params=["few tiles", "many tiles"])
def tiles(request, monkeypatch):
    """Images are handled whole, or few tiles at a time."""
    if request.param == "few tiles":
        monkeypatch.setattr(kernel, "_TILES", 6)  # no compiled function may know these: Numba would keep them
        monkeypatch.setattr(kernel, "_SUM_BYTES", 1)
        monkeypatch.setattr(kernel, "_SUM_KERNELS", 0)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("channels", [(4, 5), (16, 32), (20, 16)])
@pytest.mark.parametrize(("size", "padding"), CASES)
def test_are_pytorchs_functions(size, padding, channels):
    x, weight = torch.randn(3, channels[0], *size, dtype=torch.float64), torch.randn(*channels[::-1], 3, 3).double()
    y = F.conv2d(x, weight, padding=padding)
    dy = torch.randn_like(y)
    expected = weight_gradient_of_pytorch(x, dy, padding)
    for layout in (torch.contiguous_format, torch.channels_last):
        x, dy = x.contiguous(memory_format=layout), dy.contiguous(memory_format=layout)
        torch.testing.assert_close(kernel.correlate(x, weight.permute(2, 3, 1, 0), padding), y, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(kernel.weight_gradient(x, dy, padding), expected, rtol=1e-12, atol=1e-12)


def test_the_matrices_make_four_pixels_of_six():
    pixels, weight = torch.randn(6, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    A, B, G = (torch.from_numpy(matrix) for matrix in kernel.matrices())
    expected = F.conv1d(pixels[None, None], weight[None, None])[0, 0]
    torch.testing.assert_close(A.t() @ ((G @ weight) * (B @ pixels)), expected, rtol=1e-13, atol=1e-13)


def test_neither_other_images_nor_threads_change_a_bit():
    x, weight, dy = torch.randn(5, 32, 20, 18), torch.randn(3, 3, 32, 48), torch.randn(5, 48, 20, 18)
    threads = torch.get_num_threads()
    y, dw = kernel.correlate(x, weight, 1), kernel.weight_gradient(x, dy, 1)
    torch.set_num_threads(1)
    try:
        assert torch.equal(kernel.correlate(x, weight, 1), y)
        assert torch.equal(kernel.weight_gradient(x, dy, 1), dw)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(kernel.correlate(x[3:4], weight, 1), y[3:4])


def test_an_empty_batch_is_nothing_to_do():
    assert kernel.correlate(torch.empty(0, 3, 8, 8), torch.randn(3, 3, 3, 5), 1).shape == (0, 5, 8, 8)
    assert not kernel.weight_gradient(torch.empty(0, 3, 8, 8), torch.empty(0, 5, 8, 8), 1).any()


def test_what_is_not_a_number_spoils_its_tile_and_no_other():
    x = torch.zeros(1, 16, 24, 24)
    x[0, 3, 9, 9] = torch.nan
    y = kernel.correlate(x, torch.randn(3, 3, 16, 16), 1)
    assert y[..., 8:12, 8:12].isnan().all()
    assert y[..., :4, :].isfinite().all()
    assert y[..., :, 16:].isfinite().all()


def test_channels_and_dtypes_that_do_not_fit_never_reach_the_kernel():
    x, weight = torch.ones(1, 32, 8, 8), torch.ones(3, 3, 16, 32)
    with pytest.raises(AssertionError):
        kernel.correlate(x, weight, 1)
    with pytest.raises(AssertionError):
        kernel.correlate(x, torch.ones(3, 3, 32, 32, dtype=torch.float64), 1)
    with pytest.raises(AssertionError):
        kernel.weight_gradient(x, x.double(), 1)
