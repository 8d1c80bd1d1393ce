import numpy as np
import pytest
import torch
import torch.nn.functional as F

from styleforge.networks.layers import Conv2d, FullyConnected
from styleforge.ops import box_downsample2d, filter2d, make_filter, nearest_upsample2d


def randomize(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("convention", ["stylegan", "stylegan2"])
@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_dense_layer_equals_numpy(convention, lr_multiplier):
    layer = randomize(FullyConnected(6, 4, activation="lrelu", convention=convention, lr_multiplier=lr_multiplier))
    x = torch.randn(3, 6)
    weight, bias = layer.weight.detach().numpy() * lr_multiplier / 6**0.5, layer.bias.detach().numpy() * lr_multiplier
    if convention == "stylegan":  # the gain of the activation sits in the weights' scale
        y = x.numpy() @ (weight * 2**0.5).T + bias
        expected = np.where(y > 0, y, 0.2 * y)
    else:
        y = x.numpy() @ weight.T + bias
        expected = np.where(y > 0, y, 0.2 * y) * 2**0.5
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_weights_start_normal_over_the_multiplier_and_biases_divided_by_it():
    layer = FullyConnected(400, 300, bias_init=1.0, lr_multiplier=0.01)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.02)
    assert layer.bias.unique().tolist() == [100]
    conv = Conv2d(40, 50, 3)
    assert conv.weight.std().item() == pytest.approx(1, rel=0.03)
    assert conv.bias.abs().max() == 0


@pytest.mark.parametrize("convention", ["stylegan", "stylegan2"])
@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_a_deep_stack_of_dense_layers_keeps_the_variance(convention, lr_multiplier):
    x = torch.randn(256, 512)
    for _ in range(8):
        x = FullyConnected(512, 512, activation="lrelu", convention=convention, lr_multiplier=lr_multiplier)(x)
    assert 0.9 < x.square().mean().item() < 1.6  # 1.04 per layer, the negative side's share


@pytest.mark.parametrize("convention", ["stylegan", "stylegan2"])
def test_a_stack_of_convolutions_keeps_the_variance(convention):
    x = torch.randn(2, 64, 32, 32)
    for _ in range(3):
        x = Conv2d(64, 64, 3, activation="lrelu", convention=convention)(x)
    assert 0.85 < x[:, :, 4:-4, 4:-4].square().mean().item() < 1.4


@pytest.mark.parametrize("activation", ["linear", "lrelu"])
@pytest.mark.parametrize("convention", ["stylegan", "stylegan2"])
def test_a_1x1_convolution_is_a_dense_layer_at_every_pixel(activation, convention):
    dense = randomize(FullyConnected(5, 4, activation=activation, convention=convention))
    conv = Conv2d(5, 4, 1, activation=activation, convention=convention)
    conv.load_state_dict({"weight": dense.weight[:, :, None, None], "bias": dense.bias})
    x = torch.randn(2, 5, 3, 3)
    pixels = dense(x.permute(0, 2, 3, 1).reshape(-1, 5)).reshape(2, 3, 3, 4).permute(0, 3, 1, 2)
    torch.testing.assert_close(conv(x), pixels)


def test_stylegan_goes_up_by_nearest_neighbour_convolution_and_blur():
    layer = randomize(Conv2d(3, 4, 3, convention="stylegan", up=2))
    x = torch.randn(2, 3, 5, 6)
    y = F.conv2d(nearest_upsample2d(x, 2), layer.weight.flip([2, 3]) / 27**0.5, padding=1)
    expected = filter2d(y, make_filter([1, 2, 1])) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_stylegan_goes_down_by_blur_convolution_and_mean():
    layer = randomize(Conv2d(3, 4, 3, convention="stylegan", down=2))
    x = torch.randn(2, 3, 6, 8)
    y = box_downsample2d(F.conv2d(filter2d(x, make_filter([1, 2, 1])), layer.weight / 27**0.5, padding=1), 2)
    torch.testing.assert_close(layer(x), y + layer.bias[:, None, None], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("direction", [{"up": 2}, {"down": 2}])
def test_stylegans_blur_is_stylegan2s_filter_but_for_the_border(direction):
    old = Conv2d(3, 4, 3, convention="stylegan", **direction)
    new = Conv2d(3, 4, 3, convention="stylegan2", **direction)
    new.load_state_dict(old.state_dict())
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(old(x)[..., 3:-3, 3:-3], new(x)[..., 3:-3, 3:-3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", [{"up": 2}, {"down": 2}])
def test_without_blur_both_conventions_resample_alike(direction):
    old = Conv2d(3, 4, 3, convention="stylegan", blur=False, **direction)
    new = Conv2d(3, 4, 3, convention="stylegan2", blur=False, **direction)
    new.load_state_dict(old.state_dict())
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(old(x), new(x))


def test_the_gain_scales_output_and_clamp():
    layer = Conv2d(3, 4, 3, activation="lrelu", clamp=0.5)
    free = Conv2d(3, 4, 3, activation="lrelu")
    free.load_state_dict(layer.state_dict())
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(layer(x, gain=0.7), free(x).clamp(-0.5, 0.5) * 0.7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_float32_weights_take_features_of_any_dtype(dtype):
    dense, conv = FullyConnected(6, 4, activation="lrelu"), Conv2d(6, 4, 3, activation="lrelu", down=2)
    x = torch.randn(2, 6, 4, 4)
    for y, expected in ((dense(x[:, :, 0, 0].to(dtype)), dense(x[:, :, 0, 0])), (conv(x.to(dtype)), conv(x))):
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), expected, rtol=0.03, atol=0.03)


def test_filters_are_constants_not_weights():
    layer = Conv2d(3, 4, 3, convention="stylegan", up=2)
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert layer.double().f.dtype == torch.float64
