import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from styleforge.ops import box_downsample2d, conv2d_resample, make_filter, nearest_upsample2d, upfirdn2d

FILTERS = [[1, 1], [1, 2, 1], [1, 3, 3, 1], [1, 4, 6, 4, 1], [1, 5, 10, 10, 5, 1]]


def enlarge_then_convolve(x, weight, f, up):
    """Figure 7's order on an endless plane: filtered zero insertion, then a true convolution, cut to the image."""
    pad, taps = weight.shape[-1] // 2, f.shape[-1]
    before, after = (taps + up - 1) // 2 + pad, (taps - up) // 2 + pad
    x = upfirdn2d(x, f, up=up, padding=(before, after, before, after), gain=up**2)
    return F.conv2d(x, weight.flip([2, 3]))


def convolve_then_shrink(x, weight, f, down):
    """A convolution on an endless plane, then the filter, then every ``down``-th pixel."""
    pad, taps = weight.shape[-1] // 2, f.shape[-1]
    x = F.conv2d(F.pad(x, [pad + taps] * 4), weight)  # the image begins at taps
    before, after = (taps - down + 1) // 2 - taps, (taps - down) // 2 - taps
    return upfirdn2d(x, f, down=down, padding=(before, after, before, after))


def test_without_resampling_it_is_a_padded_convolution():
    x, weight = torch.randn(2, 4, 5, 6), torch.randn(6, 4, 3, 3)
    torch.testing.assert_close(conv2d_resample(x, weight), F.conv2d(x, weight, padding=1))


@pytest.mark.parametrize(("taps", "k"), list(itertools.product(FILTERS, [1, 3, 5])))
def test_going_up_equals_filtering_first(taps, k):
    x, weight = torch.randn(2, 3, 6, 5, dtype=torch.float64), torch.randn(4, 3, k, k, dtype=torch.float64)
    f = make_filter(taps).double()
    for up in (2, 3, 4) if len(taps) >= 4 else (2,):
        y = conv2d_resample(x, weight, f=f, up=up)
        assert y.shape == (2, 4, 6 * up, 5 * up)
        torch.testing.assert_close(y, enlarge_then_convolve(x, weight, f, up))


@pytest.mark.parametrize(("taps", "k"), list(itertools.product(FILTERS, [1, 3, 5])))
def test_going_down_equals_convolving_first(taps, k):
    x, weight = torch.randn(2, 3, 12, 24, dtype=torch.float64), torch.randn(4, 3, k, k, dtype=torch.float64)
    f = make_filter(taps).double()
    for down in (2, 3, 4) if len(taps) >= 4 else (2,):
        y = conv2d_resample(x, weight, f=f, down=down)
        assert y.shape == (2, 4, 12 // down, 24 // down)
        torch.testing.assert_close(y, convolve_then_shrink(x, weight, f, down))


def test_with_a_box_filter_it_resamples_as_stylegan_does():
    x, weight, box = torch.randn(2, 3, 6, 4), torch.randn(4, 3, 3, 3), make_filter([1, 1])
    up = F.conv2d(nearest_upsample2d(x, 2), weight.flip([2, 3]), padding=1)
    torch.testing.assert_close(conv2d_resample(x, weight, f=box, up=2), up, rtol=1e-4, atol=1e-4)
    down = box_downsample2d(F.conv2d(x, weight, padding=1), 2)
    torch.testing.assert_close(conv2d_resample(x, weight, f=box, down=2), down, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("resample", [{}, {"up": 2}, {"down": 2}])
@pytest.mark.parametrize("k", [1, 3])
def test_groups_are_separate_convolutions(resample, k):
    x, weight = torch.randn(2, 6, 6, 4), torch.randn(4, 3, k, k)
    f = make_filter([1, 3, 3, 1])
    parts = [conv2d_resample(x[:, 3 * g : 3 * g + 3], weight[2 * g : 2 * g + 2], f=f, **resample) for g in range(2)]
    y = conv2d_resample(x, weight, f=f, groups=2, **resample)
    torch.testing.assert_close(y, torch.cat(parts, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("resample", [{}, {"up": 2}, {"down": 2}])
@pytest.mark.parametrize("k", [1, 3])
def test_is_twice_differentiable(resample, k):
    f = make_filter([1, 3, 3, 1]).double()
    x = torch.randn(1, 2, 4, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, k, k, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, w: conv2d_resample(x, w, f=f, **resample), (x, weight))
    assert gradgradcheck(lambda x, w: conv2d_resample(x, w, f=f, **resample), (x, weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("resample", [{}, {"up": 2}, {"down": 2}])
def test_keeps_the_dtype(dtype, resample):
    f = make_filter([1, 3, 3, 1])
    x, weight = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64) / 5
    y = conv2d_resample(x.to(dtype), weight.to(dtype), f=f, **resample)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), conv2d_resample(x, weight, f=f, **resample), rtol=0.05, atol=0.05)
