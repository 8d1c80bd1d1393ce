import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from styleforge.ops import instance_norm, minibatch_stddev, normalize_2nd_moment, pixel_instance_norm, pixel_norm


def test_instance_norm_equals_numpy():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64) * 3 + 7
    maps = x.numpy()
    mean, var = maps.mean((2, 3), keepdims=True), maps.var((2, 3), keepdims=True)  # the biased variance
    np.testing.assert_allclose(instance_norm(x).numpy(), (maps - mean) / np.sqrt(var + 1e-8), atol=1e-12)


def test_pixel_norm_equals_numpy():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = x.numpy() / np.sqrt((x.numpy() ** 2).mean(1, keepdims=True) + 1e-8)
    np.testing.assert_allclose(pixel_norm(x).numpy(), expected, atol=1e-12)
    z = x[:, :, 0, 0]
    np.testing.assert_allclose(normalize_2nd_moment(z).numpy(), expected[:, :, 0, 0], atol=1e-12)


@pytest.mark.parametrize("alpha", [0.001, 0.004, 0.01, 0.04, 0.1])
@pytest.mark.parametrize("brightness", [10.0, 1e3])
def test_instance_norm_turns_a_bright_region_into_a_magnitude_of_its_area(alpha, brightness):
    size, num_channels = 256, 16
    side = round(size * alpha**0.5)
    x = torch.randn(1, num_channels, size, size) * 0.1
    x[:, :, 40 : 40 + side, 60 : 60 + side] += brightness
    region = instance_norm(x)[:, :, 40 : 40 + side, 60 : 60 + side]
    exact_alpha = (side / size) ** 2
    expected = ((1 - exact_alpha) / exact_alpha) ** 0.5  # Tan et al., Eq. 2
    assert region.abs().mean().item() == pytest.approx(expected, rel=0.05)


def test_pixel_norm_leaves_no_bright_region():
    x = torch.randn(1, 64, 32, 32)
    x[:, :, :4, :4] *= 1e4
    y = pixel_norm(x)
    assert y.abs().max() < 64**0.5 + 1e-3
    torch.testing.assert_close(y.square().mean(1), torch.ones(1, 32, 32))


def test_pin_is_instance_norm_at_rho_0_and_pixel_norm_at_rho_1():
    x = torch.randn(2, 6, 5, 5)
    assert torch.equal(pixel_instance_norm(x, torch.zeros(6)), instance_norm(x))
    assert torch.equal(pixel_instance_norm(x, torch.ones(6)), pixel_norm(x))


def test_pin_mixes_per_channel():
    x, rho = torch.randn(2, 3, 5, 5), torch.tensor([0.0, 0.25, 1.0])
    y = pixel_instance_norm(x, rho)
    for c in range(3):
        expected = rho[c] * pixel_norm(x)[:, c] + (1 - rho[c]) * instance_norm(x)[:, c]
        torch.testing.assert_close(y[:, c], expected)


def test_rho_is_clipped_and_learns_from_its_start_at_0():
    x = torch.randn(2, 4, 5, 5)
    outside, inside = torch.tensor([-3.0, 0.5, 1.0, 7.0]), torch.tensor([0.0, 0.5, 1.0, 1.0])
    assert torch.equal(pixel_instance_norm(x, outside), pixel_instance_norm(x, inside))
    rho = torch.zeros(4, requires_grad=True)
    pixel_instance_norm(x, rho).pow(3).sum().backward()
    assert (rho.grad != 0).all()  # the clip must not cut the gradient off at the very value that training starts from


@pytest.mark.parametrize(("num", "group", "num_channels"), [(4, 4, 1), (8, 4, 1), (8, 2, 3), (6, 3, 2), (4, 1, 1)])
def test_minibatch_stddev_equals_loops_over_the_groups(num, group, num_channels):
    x = np.random.RandomState(1).randn(num, 6, 3, 2)
    groups = num // group
    expected = np.zeros((num, num_channels, 3, 2))
    for n in range(num):
        members = [m for m in range(num) if m % groups == n % groups]
        assert len(members) == group
        for f in range(num_channels):
            width = 6 // num_channels
            part = x[members, f * width : (f + 1) * width]
            expected[n, f] = np.sqrt(part.var(axis=0) + 1e-8).mean()
    y = minibatch_stddev(torch.from_numpy(x), group, num_channels)
    assert torch.equal(y[:, :6], torch.from_numpy(x))
    np.testing.assert_allclose(y[:, 6:].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("num", "group", "taken"), [(3, 4, 3), (1, 4, 1), (6, 4, 3), (7, 4, 1), (10, 4, 2), (12, 32, 12)]
)
def test_minibatch_stddev_takes_the_largest_group_that_divides_the_batch(num, group, taken):
    x = torch.randn(num, 4, 2, 2)
    assert torch.equal(minibatch_stddev(x, group), minibatch_stddev(x, taken))


FUNCTIONS = {
    "instance_norm": instance_norm,
    "pixel_norm": pixel_norm,
    "minibatch_stddev": lambda x: minibatch_stddev(x, 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_is_twice_differentiable(name):
    x = torch.randn(4, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(FUNCTIONS[name], (x,))
    assert gradgradcheck(FUNCTIONS[name], (x,))


def test_pin_is_twice_differentiable_in_features_and_rho():
    x = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    rho = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    assert gradcheck(pixel_instance_norm, (x, rho))
    assert gradgradcheck(pixel_instance_norm, (x, rho))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_keeps_the_dtype_and_large_values_stay_finite(dtype):
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64) * 1000  # squares overflow in float16
    functions = FUNCTIONS | {"pin": lambda x: pixel_instance_norm(x, torch.full((3,), 0.5))}
    for function in functions.values():
        y = function(x.to(dtype))
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), function(x), rtol=0.02, atol=0.02)


def test_flat_and_empty_features_stay_finite():
    for function in FUNCTIONS.values():
        x = torch.full((2, 3, 4, 4), 0.0, requires_grad=True)
        y = function(x)
        y.sum().backward()
        assert y.isfinite().all() and x.grad.isfinite().all()
    assert instance_norm(torch.full((1, 1, 4, 4), 1e4)).abs().max() == 0


def test_a_rho_of_another_length_is_refused(refuses):
    with refuses("rho", "[2]", "[3]", "one mixing weight per channel"):
        pixel_instance_norm(torch.zeros(1, 3, 2, 2), torch.zeros(2))
