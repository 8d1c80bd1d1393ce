import pytest
import torch
from tiny_generators import tiny_generator

from styleforge.analysis.activations import alter, find_layer, layer_names, record


def draw_ws(G, num=2):
    z = torch.randn(num, G.z_dim, generator=torch.Generator().manual_seed(0))
    return G.mapping(z, truncation_psi=1.0)


@pytest.mark.parametrize("kind", ["square", "non-square", "config-a"])
def test_layers_have_the_shapes_of_the_config(kind):
    G = tiny_generator(kind)
    sizes, channels = G.config.plan.sizes, G.config.channels
    with record(G) as activations:
        G.synthesis(draw_ws(G), noise_mode="const")
    assert list(activations) == layer_names(G)
    for i, (name, x) in enumerate(activations.items()):
        block = (i + (2 * len(sizes) - len(activations))) // 2
        assert name.startswith(f"b{sizes[block][0]}")
        assert list(x.shape) == [2, channels[block], *sizes[block]]


def test_config_a_has_a_layer_on_its_constant():
    assert layer_names(tiny_generator("config-a"))[:2] == ["b4.conv0", "b4.conv1"]
    assert layer_names(tiny_generator())[:2] == ["b4.conv1", "b8.conv0"]


def test_recorded_features_make_the_picture():
    G = tiny_generator("config-a")
    ws = draw_ws(G)
    with record(G, ["b16.conv1"]) as activations:
        img = G.synthesis(ws, noise_mode="const")
    assert torch.equal(G.synthesis.b16.torgb(activations["b16.conv1"]), img)


def test_blocks_and_rgb_layers_are_recorded_too():
    G = tiny_generator()
    with record(G, ["b16", "b16.conv1", "b16.torgb"]) as activations:
        G.synthesis(draw_ws(G), noise_mode="const")
    assert torch.equal(activations["b16"], activations["b16.conv1"])
    assert activations["b16.torgb"].shape == (2, 3, 16, 16)


def test_each_call_is_recorded_anew():
    G = tiny_generator("config-a")
    ws = draw_ws(G)
    with record(G) as activations:
        G.synthesis(ws, noise_mode="const")
        G.synthesis(ws[:1], noise_mode="const", lod=1.0)
    assert list(activations) == layer_names(G, lod=1.0)
    assert len(activations["b8.conv1"]) == 1


def test_a_changed_layer_changes_what_follows_alone():
    G = tiny_generator()
    ws = draw_ws(G)
    with record(G) as before:
        G.synthesis(ws, noise_mode="const")
    with alter(G, "b8.conv1", lambda x: 2 * x), record(G) as after:
        G.synthesis(ws, noise_mode="const")
    assert torch.equal(after["b8.conv0"], before["b8.conv0"])
    assert torch.equal(after["b8.conv1"], 2 * before["b8.conv1"])
    assert not torch.equal(after["b16.conv1"], before["b16.conv1"])


def test_the_network_is_as_before_even_after_an_error():
    G = tiny_generator("config-a")
    ws = draw_ws(G)
    img = G.synthesis(ws, noise_mode="const")

    def fail(x):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), record(G), alter(G, "b8.conv0", fail):
        G.synthesis(ws, noise_mode="const")
    assert torch.equal(G.synthesis(ws, noise_mode="const"), img)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in G.modules())


def test_an_unknown_layer_is_answered_by_the_known_ones():
    message = r"layer: got 'b8\.conv2', expected one of b4\.conv1, b8\.conv0, .*\(--layer\)"
    with pytest.raises(ValueError, match=message):
        find_layer(tiny_generator(), "b8.conv2")
