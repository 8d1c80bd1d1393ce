import numpy as np
import pytest
import torch

from styleforge.networks import Generator, GeneratorConfig
from styleforge.networks.mapping import LabelMapping, MappingNetwork


def make(**values):
    config = {"resolution": 16, "z_dim": 6, "w_dim": 8, "mapping_layers": 3} | values
    mapping = MappingNetwork(GeneratorConfig(**config))
    for parameter in mapping.parameters():
        torch.nn.init.normal_(parameter, std=10)
    torch.nn.init.normal_(mapping.w_avg)
    return mapping


def normalized(x):
    return x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-8)


def by_numpy(mapping, z, c=None):
    """The mapping network of Karras et al., step by step, in float64."""
    state = {name: tensor.double().numpy() for name, tensor in mapping.state_dict().items()}
    config = mapping.config
    x = normalized(z)
    if c is not None and config.label_mode == "matrix":
        x = normalized(np.concatenate([z, c @ state["embed.weight"].T], axis=1))
    elif c is not None:
        y = c @ state["embed.weight"].T / config.c_dim**0.5 + state["embed.bias"]
        x = np.concatenate([x, normalized(y)], axis=1)
    for i in range(config.mapping_layers):
        m = config.mapping_lr_multiplier
        gain = 2**0.5
        weight, bias = state[f"fc{i}.weight"] * m / x.shape[1] ** 0.5, state[f"fc{i}.bias"] * m
        y = x @ weight.T + bias if config.convention == "stylegan2" else x @ weight.T * gain + bias
        x = np.where(y > 0, y, 0.2 * y) * (gain if config.convention == "stylegan2" else 1)
    return x


@pytest.mark.parametrize("style_block", ["demodulation", "instance"])
@pytest.mark.parametrize("labels", [{}, {"c_dim": 5}, {"c_dim": 5, "label_mode": "matrix"}])
@pytest.mark.parametrize(
    "widths", [{}, {"mapping_features": 11}, {"mapping_layers": 1}, {"mapping_lr_multiplier": 1.0}]
)
def test_equals_numpy(style_block, labels, widths):
    mapping = make(style_block=style_block, **labels, **widths)
    z, c = torch.randn(4, 6), torch.eye(5)[[0, 3, 3, 1]] if labels else None
    w = mapping.map(z, c).detach().numpy()
    np.testing.assert_allclose(w, by_numpy(mapping, z.numpy(), None if c is None else c.numpy()), rtol=1e-4, atol=1e-4)


def test_the_length_of_z_does_not_matter():
    mapping, z = make(), torch.randn(4, 6)
    torch.testing.assert_close(mapping(z), mapping(7 * z))


def test_w_starts_with_unit_variance():
    mapping = MappingNetwork(GeneratorConfig(resolution=16))
    assert 0.8 < mapping.map(torch.randn(256, 512)).square().mean() < 1.7


def test_every_layer_gets_the_same_w():
    mapping, z = make(), torch.randn(4, 6)
    ws = mapping(z)
    assert ws.shape == (4, 6, 8)
    for layer in range(6):
        assert torch.equal(ws[:, layer], mapping.map(z))


def test_ws_can_be_mixed_in_place():
    mapping = make()
    a, b = mapping(torch.randn(2, 6)), mapping(torch.randn(2, 6))
    first = a[:, :3].clone()
    a[:, 3:] = b[:, 3:]  # the way that people mix styles
    assert torch.equal(a[:, :3], first) and torch.equal(a[:, 3:], b[:, 3:])
    a.sum().backward()


def test_truncation_moves_w_along_the_line_to_the_mean():
    mapping, z = make(), torch.randn(4, 6)
    ws, mean = mapping(z), mapping.w_avg
    for psi in (0.0, 0.5, -1.0, 1.5):
        torch.testing.assert_close(mapping(z, truncation_psi=psi), mean + psi * (ws - mean))
    assert torch.equal(mapping(z, truncation_psi=1), ws)


@pytest.mark.parametrize("cutoff", [0, 1, 4, 6])
def test_the_cutoff_counts_the_layers_that_are_truncated(cutoff):
    mapping, z = make(), torch.randn(4, 6)
    ws = mapping(z, truncation_psi=0.5, truncation_cutoff=cutoff)
    assert torch.equal(ws[:, :cutoff], mapping(z, truncation_psi=0.5)[:, :cutoff])
    assert torch.equal(ws[:, cutoff:], mapping(z)[:, cutoff:])


def test_w_avg_is_a_running_mean_with_decay_0995():
    mapping = make()
    w, before = torch.randn(16, 8, requires_grad=True), mapping.w_avg.clone()
    mapping.update_w_avg(w)
    torch.testing.assert_close(mapping.w_avg, 0.995 * before + 0.005 * w.detach().mean(0))
    mapping.update_w_avg(w, decay=0.0)
    torch.testing.assert_close(mapping.w_avg, w.detach().mean(0))
    assert not mapping.w_avg.requires_grad and "w_avg" in mapping.state_dict()


def test_without_layers_w_is_normalised_z():
    mapping, z = make(mapping_layers=0, w_dim=6), torch.randn(4, 6)
    np.testing.assert_allclose(mapping.map(z).numpy(), normalized(z.numpy()), rtol=1e-5)
    assert not list(mapping.parameters())


@pytest.mark.parametrize("label_mode", ["embedding", "matrix"])
def test_without_layers_labels_still_count_and_w_keeps_its_length(label_mode):
    mapping = make(mapping_layers=0, w_dim=6, c_dim=3, label_mode=label_mode)
    z = torch.randn(1, 6).expand(3, 6)
    w = mapping.map(z, torch.eye(3))
    torch.testing.assert_close(w.square().mean(1), torch.ones(3))
    assert torch.pdist(w).min() > 1e-2
    w.sum().backward()
    assert all(parameter.grad is not None for parameter in mapping.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_w_has_the_dtype_of_z(dtype):
    mapping, z = make(c_dim=5), torch.randn(4, 6)
    c = torch.eye(5)[:4]
    for psi in (1, 0.5):
        ws = mapping(z.to(dtype), c, truncation_psi=psi)
        assert ws.dtype == dtype
        assert (ws.float() - mapping(z, c, truncation_psi=psi)).norm() < 0.05 * ws.float().norm()


def test_embedded_labels_of_a_discriminator_start_normalised():
    mapping = LabelMapping(5, 16, 0, convention="stylegan2")
    torch.testing.assert_close(mapping(torch.eye(5)).square().mean(1), torch.ones(5))
    assert LabelMapping(5, 16, 8, convention="stylegan2")(torch.eye(5)).shape == (5, 16)


def test_bad_inputs_are_refused(refuses):
    free, conditional = make(), make(c_dim=5)
    z, c = torch.zeros(2, 6), torch.zeros(2, 5)
    with refuses("z", "[2, 7]", "6]", "G.z_dim"):
        free(torch.zeros(2, 7))
    with refuses("z", "[6]"):
        free(torch.zeros(6))
    with refuses("c", "[2, 5]", "unconditional", "leave c out"):
        free(z, c)
    with refuses("no labels", "[2, 5]", "conditional"):
        conditional(z)
    with refuses("c", "[2, 4]", "[2, 5]", "one row per sample"):
        conditional(z, torch.zeros(2, 4))
    with refuses("c", "[1, 5]", "[2, 5]"):
        conditional(z, c[:1])
    with refuses("c", "[2]", "one-hot"):
        conditional(z, torch.tensor([0, 1]))


def test_an_unconditional_network_takes_the_fields_empty_labels():
    mapping, z = make(), torch.randn(2, 6)
    assert torch.equal(mapping(z, torch.zeros(2, 0)), mapping(z))


def test_the_generator_shows_its_running_mean():
    G = Generator(GeneratorConfig(resolution=8, channel_base=32, z_dim=4, w_dim=4))
    assert G.w_avg is G.mapping.w_avg
