import numpy as np
import pytest
import torch
import torch.nn.functional as F

from styleforge.ops.kernels.cpu import winograd as kernel


def image(*shape):
    return torch.randn(shape, dtype=torch.float64).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3, 300])
@pytest.mark.parametrize(("n", "t", "step"), [(6, 6, 4), (6, 4, 4), (4, 4, 2), (3, 2, 2), (2, 1, 1)])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_transforms_overlapping_tiles_and_zeros_around_the_image(channels, n, t, step, padding):
    x, matrix = image(2, channels, 9, 11), np.random.randn(n, t)
    a, b = 4, 5
    into = torch.full((n, n, 2, a - 1, b, channels), torch.nan, dtype=torch.float64)
    kernel.transform(x, matrix, step, 1, padding, into)
    size = [step * (tiles - 1) + t for tiles in (a, b)]
    padded = F.pad(x, [padding, max(size[1] - padding - 11, 0), padding, max(size[0] - padding - 9, 0)])
    tiles = padded.unfold(2, t, step)[:, :, 1:a].unfold(3, t, step)[:, :, :, :b]  # [N, C, a, b, t, t]
    m = torch.from_numpy(matrix)
    torch.testing.assert_close(into, torch.einsum("kr,jq,ncabrq->kjnabc", m, m, tiles), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3, 300])
@pytest.mark.parametrize(("n", "t"), [(6, 4), (4, 2), (2, 1)])
def test_transforms_back_to_pixels_and_crops_what_lies_outside(channels, n, t):
    a, b = 3, 5
    numbers, matrix = torch.randn(n, n, 2, a, b, channels, dtype=torch.float64), np.random.randn(t, n)
    m = torch.from_numpy(matrix)
    expected = torch.einsum("rk,qj,kjnabc->ncarbq", m, m, numbers).reshape(2, channels, a * t, b * t)
    for height, width in ((a * t, b * t), (a * t - t + 1, b * t - t + 1)):
        into = image(2, channels, t + height, width)
        above = into[:, :, :t].clone()
        kernel.transform_back(numbers, matrix, 1, into)
        assert torch.equal(into[:, :, :t], above)
        torch.testing.assert_close(into[:, :, t:], expected[:, :, :height, :width], rtol=1e-12, atol=1e-12)


def test_an_empty_batch_is_nothing_to_do():
    into = torch.empty(6, 6, 0, 2, 2, 3)
    kernel.transform(torch.empty(0, 3, 8, 8), np.eye(6), 4, 0, 1, into)
    kernel.transform_back(into, np.ones((4, 6)), 0, torch.empty(0, 3, 8, 8))
