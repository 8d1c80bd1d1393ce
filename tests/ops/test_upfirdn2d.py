import itertools

import numpy as np
import pytest
import scipy.signal
import torch
from torch.autograd import gradcheck, gradgradcheck

from styleforge.ops import (
    box_downsample2d,
    downsample2d,
    filter2d,
    make_filter,
    nearest_upsample2d,
    upfirdn2d,
    upsample2d,
)

PADDINGS = [0, 2, (3, 1, 2, 0), (0, 3, 1, 2), (-1, 2, 1, -2), (-1, -1, -1, -1), (-2, 4, 4, -1)]
F_1331 = make_filter([1, 3, 3, 1])


def by_scipy(x, f, up, down, padding, flip_filter, gain):
    """The definition, step by step: insert zeros, pad or crop, convolve, drop pixels."""
    left, right, top, bottom = (padding,) * 4 if isinstance(padding, int) else padding
    f = np.outer(f, f) if f.ndim == 1 else f
    f = f[::-1, ::-1] if flip_filter else f
    N, C, H, W = x.shape
    stuffed = np.zeros((N, C, H * up, W * up))
    stuffed[:, :, ::up, ::up] = x
    padded = np.pad(stuffed, [(0, 0), (0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))])
    padded = padded[:, :, max(-top, 0) :, max(-left, 0) :]
    padded = padded[:, :, : padded.shape[2] - max(-bottom, 0), : padded.shape[3] - max(-right, 0)]
    y = [[scipy.signal.convolve2d(plane, f, mode="valid") for plane in sample] for sample in padded]
    return np.array(y)[:, :, ::down, ::down] * gain


@pytest.mark.parametrize(("up", "down"), list(itertools.product([1, 2, 3, 4], [1, 2, 3])))
def test_equals_the_definition(up, down):
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    for shape in [(4, 4), (3, 3), (2, 5), (1, 1), (4,)]:
        f = torch.randn(shape, dtype=torch.float64)  # without any symmetry
        for padding, flip, gain in itertools.product(PADDINGS, [False, True], [1.0, 2.5]):
            y = upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip, gain=gain)
            expected = by_scipy(x.numpy(), f.numpy(), up, down, padding, flip, gain)
            assert y.shape == expected.shape, (shape, padding)
            np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=1e-12, err_msg=f"{shape} {padding} {flip}")


@pytest.mark.parametrize(
    "arguments",
    [
        {"padding": 1},
        {"padding": (-1, 2, 0, 1)},
        {"up": 2, "padding": (2, 1, 2, 1), "gain": 4.0},
        {"up": 2, "padding": (-1, 3, 1, 0), "flip_filter": True},
        {"down": 2, "padding": (1, 1, 1, 1)},
        {"up": 3, "down": 2, "padding": (2, 2, 1, 3)},
    ],
)
def test_is_twice_differentiable(arguments):
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    f = torch.randn(3, 3, dtype=torch.float64)
    assert gradcheck(lambda x: upfirdn2d(x, f, **arguments), (x,))
    assert gradgradcheck(lambda x: upfirdn2d(x, f, **arguments), (x,))
    f.requires_grad_()
    assert gradcheck(lambda x, f: upfirdn2d(x, f, **arguments), (x, f))
    assert gradgradcheck(lambda x, f: upfirdn2d(x, f, **arguments), (x, f))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_keeps_the_dtype(dtype):
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for arguments in ({"padding": 2}, {"up": 2, "padding": (2, 1, 2, 1)}, {"down": 2, "padding": (-1, 2, 1, 1)}):
        y = upfirdn2d(x.to(dtype), F_1331, **arguments)
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), upfirdn2d(x, F_1331, **arguments), rtol=0.02, atol=0.02)


def test_both_memory_layouts_give_the_same():
    x = torch.randn(2, 3, 8, 6)
    last = x.contiguous(memory_format=torch.channels_last)
    for arguments in (
        {"padding": 2},
        {"up": 2, "padding": (2, 1, 2, 1)},
        {"up": 2, "down": 2, "padding": (0, 3, 1, 2)},
    ):
        torch.testing.assert_close(upfirdn2d(last, F_1331, **arguments), upfirdn2d(x, F_1331, **arguments))


def test_make_filter_is_normalised_and_separable():
    expected = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    np.testing.assert_allclose(F_1331.numpy(), expected, atol=1e-8)
    assert make_filter([5]).tolist() == [[1.0]]


def test_one_pixel_filter_changes_nothing():
    x = torch.randn(2, 3, 5, 4)
    assert torch.equal(upfirdn2d(x, torch.ones(1, 1)), x)
    assert torch.equal(filter2d(x, torch.ones(1, 1)), x)


@pytest.mark.parametrize("taps", [[1, 1], [1, 2, 1], [1, 3, 3, 1], [1, 4, 6, 4, 1], [1, 5, 10, 10, 5, 1]])
@pytest.mark.parametrize("factor", [2, 4])
def test_resampling_keeps_flat_areas_and_the_centre(taps, factor):
    f = make_filter(taps)
    f = f if factor == 2 else upfirdn2d(f[None, None], f, up=2, padding=len(taps) - 1)[0, 0]  # a filter for both steps
    x = torch.ones(1, 1, 16, 12)
    small, large = downsample2d(x, f, down=factor), upsample2d(x, f, up=factor)
    assert small.shape == (1, 1, 16 // factor, 12 // factor)
    assert large.shape == (1, 1, 16 * factor, 12 * factor)
    m = len(taps) * factor  # away from the border, where zeros come in
    torch.testing.assert_close(large[:, :, m:-m, m:-m], torch.ones_like(large[:, :, m:-m, m:-m]))
    if len(taps) % 2 == 0:  # an even filter has its middle between two pixels, as a resampling by 2 has: no shift
        torch.testing.assert_close(large, large.flip([2, 3]))
        torch.testing.assert_close(small, small.flip([2, 3]))


def test_up_and_down_again_keeps_smooth_pictures():
    ramp = torch.arange(24, dtype=torch.float64)
    x = (ramp[:, None] + 2 * ramp)[None, None]
    y = downsample2d(upsample2d(x, F_1331), F_1331)
    torch.testing.assert_close(y[..., 3:-3, 3:-3], x[..., 3:-3, 3:-3])  # linear functions pass both filters


def test_box_filter_is_nearest_neighbour_up_and_mean_down():
    x, box = torch.randn(2, 3, 6, 4), make_filter([1, 1])
    torch.testing.assert_close(upsample2d(x, box), nearest_upsample2d(x, 2))
    torch.testing.assert_close(downsample2d(x, box), box_downsample2d(x, 2))


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_nearest_and_box_equal_numpy(factor):
    x = torch.randn(2, 3, 8, 4)
    repeated = np.repeat(np.repeat(x.numpy(), factor, axis=2), factor, axis=3)
    assert np.array_equal(nearest_upsample2d(x, factor).numpy(), repeated)
    blocks = x.numpy().reshape(2, 3, 8 // factor, factor, 4 // factor, factor)
    np.testing.assert_allclose(box_downsample2d(x, factor).numpy(), blocks.mean((3, 5)), atol=1e-6)
    torch.testing.assert_close(box_downsample2d(nearest_upsample2d(x, factor), factor), x)


def test_an_odd_filter_keeps_size_and_place():
    impulse = torch.zeros(1, 1, 7, 5)
    impulse[0, 0, 3, 2] = 1
    y = filter2d(impulse, make_filter([1, 2, 1]), gain=16)
    assert y.shape == impulse.shape
    assert y[0, 0, 2:5, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert y.sum() == 16


def test_bad_arguments_are_refused(refuses):
    x, f = torch.zeros(1, 1, 4, 4), F_1331
    with refuses("[4, 4]", "[N, C, H, W]"):
        upfirdn2d(x[0, 0], f)
    with refuses("0"):
        upfirdn2d(x, f, up=0)
    with refuses("-1"):
        upfirdn2d(x, f, down=-1)
    with refuses("4×4 filter", "3×4 padded"):
        upfirdn2d(x, f, padding=(0, 0, -1, 0))
    with refuses("4×4 filter", "2×2 padded"):
        upfirdn2d(x[:, :, :1, :1], f, up=2)
