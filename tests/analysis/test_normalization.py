import json

import pytest
import torch
from tiny_generators import tiny_generator

from styleforge.analysis.activations import layer_names
from styleforge.analysis.normalization import demodulation_by_layer, normalization_report, rho_by_layer
from styleforge.latents import generate_ws
from styleforge.networks import Generator, GeneratorConfig


def pin_generator():
    torch.manual_seed(1)
    config = GeneratorConfig(resolution=16, z_dim=8, w_dim=8, channel_max=12, style_block="pixel_instance")
    G = Generator(config).eval().requires_grad_(False)
    G.synthesis.b4.conv0.norm.rho.fill_(0.25)
    G.synthesis.b16.conv1.epilogue.norm.rho.copy_(torch.linspace(-0.5, 1.5, 12))
    return G


def test_rho_is_read_layer_by_layer_and_clipped():
    G = pin_generator()
    values = rho_by_layer(G)
    assert list(values) == layer_names(G)
    assert torch.equal(values["b4.conv0"], torch.full((12,), 0.25))
    assert torch.equal(values["b8.conv1"], torch.zeros(12))
    torch.testing.assert_close(values["b16.conv1"], torch.linspace(-0.5, 1.5, 12).clamp(0, 1))


def test_demodulation_brings_each_modulated_weight_to_unit_length():
    G = tiny_generator()
    ws = generate_ws(G, range(3))
    values = demodulation_by_layer(G, ws)
    assert list(values) == layer_names(G)
    for i, (name, coefficients) in enumerate(values.items()):
        layer = G.synthesis.get_submodule(name)
        styles = layer.affine(ws[:, i])
        modulated = layer.weight[None] * layer.weight_gain * styles[:, None, :, None, None]  # [N, O, I, k, k]
        norms = (modulated * coefficients[:, :, None, None, None]).flatten(2).norm(dim=2)
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-4, atol=1e-4)


def test_networks_without_them_are_told_who_has_them(refuses):
    A, F = tiny_generator("config-a"), tiny_generator()
    with refuses("'demodulation'", "'pixel_instance'"):
        rho_by_layer(F)
    with refuses("'pixel_instance'", "configs B to F"):
        demodulation_by_layer(pin_generator(), torch.zeros(1, 6, 8))
    with refuses("'instance'", "rho", "configs B to F"):
        normalization_report(A, generate_ws(A, [0]))


@pytest.mark.parametrize("kind", ["rho", "demodulation"])
def test_the_report_takes_what_the_network_has_and_writes_it(tmp_path, kind):
    G = pin_generator() if kind == "rho" else tiny_generator("non-square")
    report = normalization_report(G, generate_ws(G, range(4)))
    assert report.quantity == kind
    written = report.write(tmp_path / "out", {"network": "tiny"})
    assert [path.name for path in written] == ["normalization.json", "normalization.png"]
    values = json.loads(written[0].read_text())
    assert values["summary"] == report.summary() and values["settings"] == {"network": "tiny"}
    assert list(values["layers"]) == layer_names(G)
    if kind == "rho":
        assert values["layers"]["b8.conv0"]["instance_norm"] == 1
        assert values["layers"]["b16.conv1"]["pixel_norm"] == pytest.approx(4 / 12)
        assert "rho is 0.25 in the mean of b4.conv0 and 0.50 of b16.conv1" in report.summary()
    else:
        assert all(layer["variation_over_w"] > 0 for layer in values["layers"].values())


def test_one_picture_is_enough():
    G = tiny_generator()
    layers = normalization_report(G, generate_ws(G, [0])).numbers()["layers"]
    assert all(layer["variation_over_w"] == 0 for layer in layers.values())
