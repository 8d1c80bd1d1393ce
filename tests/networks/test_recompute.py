import pytest
import torch

from styleforge.networks import Discriminator, Generator, network_preset


@pytest.fixture
def networks(tiny):
    """A generator and a discriminator of config F at 32×32, in training."""
    generator, discriminator = network_preset("config-f", 32)
    G, D = Generator(tiny(generator)), Discriminator(tiny(discriminator))
    for name, parameter in G.named_parameters():
        if name.endswith("noise.strength"):
            torch.nn.init.ones_(parameter)
    return G, D


def set_resolution(networks, resolution):
    G, D = networks
    G.synthesis.checkpoint_resolution = D.checkpoint_resolution = resolution


def runs_of_blocks(networks):
    """How often each block of the two runs in one forward and one backward pass."""
    G, D = networks
    counts, handles = {}, []
    for title, network in (("G", G.synthesis), ("D", D)):
        for name, block in network.named_children():

            def count(*_, key=f"{title}.{name}"):
                counts[key] = counts.get(key, 0) + 1

            handles.append(block.register_forward_pre_hook(count))
    D(G(torch.randn(2, G.z_dim))).sum().backward()
    for handle in handles:
        handle.remove()
    return {name for name, number in counts.items() if number == 2}, set(counts)


def test_blocks_from_the_resolution_on_run_twice(networks):
    set_resolution(networks, 16)
    twice, every = runs_of_blocks(networks)
    assert twice == {"G.b16", "G.b32", "D.b16", "D.b32"}
    assert {"G.b4", "G.b8", "D.b8", "D.b4"} <= every
    set_resolution(networks, None)
    assert runs_of_blocks(networks)[0] == set()


def test_only_training_computes_again(networks):
    set_resolution(networks, 4)
    for network in networks:
        network.eval()
    assert runs_of_blocks(networks)[0] == set()


def test_without_gradients_nothing_changes(networks):
    G, _ = networks
    z = torch.randn(2, G.z_dim)
    expected = G(z, noise_mode="const")
    set_resolution(networks, 4)
    with torch.no_grad():
        assert torch.equal(G(z, noise_mode="const"), expected)


def test_random_noise_is_drawn_again(networks):
    G, _ = networks
    ws = torch.randn(2, G.num_ws, G.w_dim, requires_grad=True)
    results = []
    for resolution in (None, 4):
        set_resolution(networks, resolution)
        torch.manual_seed(1)
        img = G.synthesis(ws, noise_mode="random")
        parameters = [p for p in G.synthesis.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(img.square().sum(), [ws, *parameters])
        results.append([img, *gradients, torch.rand(1)])  # what comes next is the same, too
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))
    torch.manual_seed(2)
    assert not torch.equal(G.synthesis(ws, noise_mode="random"), results[0][0])


def test_less_is_kept(networks):
    G, D = networks
    kept = {}
    for resolution in (None, 16):
        set_resolution(networks, resolution)
        sizes = {}

        def keep(x, sizes=sizes):
            sizes[x.data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            logits = D(G(torch.randn(8, G.z_dim)))
        kept[resolution] = sum(sizes.values())
        assert logits.requires_grad
    assert kept[16] < kept[None] / 2
