import pytest
import torch
import torch.nn.functional as F
from tiny_generators import tiny_generator

from styleforge.latents import Directions, GaussianLatents, find_directions, generate_ws, sample_w
from styleforge.latents.directions import style_weights
from styleforge.networks import Generator, GeneratorConfig

SAMPLES = 2000


@pytest.fixture(scope="module")
def G():
    return tiny_generator()


@pytest.fixture(scope="module")
def pca(G):
    return find_directions(G, num=8, num_samples=SAMPLES)


def test_principal_axes_of_w_are_those_of_the_sampled_covariance(G, pca):
    w = torch.cat(list(sample_w(G, SAMPLES))).double()
    covariance = w.T.cov()
    values = torch.linalg.eigvalsh(covariance).flip(0)
    torch.testing.assert_close(pca.scales.double(), values.sqrt(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pca.shares.double(), values / values.sum(), rtol=1e-5, atol=1e-7)
    for vector, value in zip(pca.vectors.double(), values, strict=True):
        torch.testing.assert_close(covariance @ vector, value * vector, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(pca.vectors @ pca.vectors.T, torch.eye(8), rtol=0, atol=1e-5)


def test_principal_axes_of_v_are_the_gaussians(G):
    found = find_directions(G, space="v", num=3, num_samples=SAMPLES)
    variances, axes = GaussianLatents.fit(G, SAMPLES).principal_axes()
    torch.testing.assert_close(found.vectors, axes.T[:3].float())
    torch.testing.assert_close(found.scales, variances[:3].sqrt().float())


@pytest.mark.parametrize("kind", ["square", "config-a"])
def test_the_first_direction_of_styles_changes_styles_most(kind):
    G = tiny_generator(kind)
    found = find_directions(G, method="styles", num=8, num_samples=SAMPLES)
    layers = [layer for block in G.synthesis.blocks for layer in block.style_layers]
    affines = [layer.affine if kind == "square" else getattr(layer, "epilogue", layer).norm.affine for layer in layers]

    def change(vectors):
        w = torch.randn(8)
        return sum((affine(w + vectors) - affine(w)).square().sum(1) for affine in affines)

    changes = change(found.vectors)
    assert (changes.diff() <= 1e-4).all()
    assert changes[0] >= change(F.normalize(torch.randn(200, 8), dim=1)).max() - 1e-4
    torch.testing.assert_close(found.shares, changes / changes.sum(), rtol=1e-3, atol=1e-5)


def test_styles_of_chosen_layers_alone_count(G):
    all_layers, first = style_weights(G), style_weights(G, [0])
    assert torch.equal(all_layers[: len(first)], first) and len(first) == 12 and all_layers.shape[1] == 8


def test_strength_is_counted_in_standard_deviations(G, pca):
    ws = generate_ws(G, range(3))
    moved = pca.apply(ws, 1, 2.5)
    torch.testing.assert_close(moved, ws + 2.5 * pca.scales[1] * pca.vectors[1])
    assert torch.equal(pca.apply(ws, 1, 0), ws)
    torch.testing.assert_close(pca.apply(moved, 1, -2.5), ws, rtol=0, atol=1e-5)


def test_directions_of_v_are_straight_in_v(G):
    found, ws = find_directions(G, space="v", num=2, num_samples=SAMPLES), generate_ws(G, range(3))
    moved = F.leaky_relu(found.apply(ws, 0, 1.5), 5.0)
    torch.testing.assert_close(moved, F.leaky_relu(ws, 5.0) + 1.5 * found.scales[0] * found.vectors[0])
    torch.testing.assert_close(found.apply(ws, 0, 0), ws)


def test_strengths_can_differ_between_samples(G, pca):
    ws, strengths = generate_ws(G, range(3)), torch.tensor([-1.0, 0.0, 2.0])
    moved = pca.apply(ws, 0, strengths[:, None, None])
    for i, strength in enumerate(strengths.tolist()):
        torch.testing.assert_close(moved[i], pca.apply(ws[i : i + 1], 0, strength)[0])


def test_chosen_layers_move_and_the_others_stay(G):
    found, ws = find_directions(G, num=1, layers=[1, 3], num_samples=SAMPLES), generate_ws(G, range(2))
    change = (found.apply(ws, 0, 2) - ws).abs().amax([0, 2])
    assert [i for i, value in enumerate(change.tolist()) if value] == [1, 3]
    path = ws[None].expand(4, -1, -1, -1)  # with more dimensions before
    assert torch.equal(found.apply(path, 0, 2)[3], found.apply(ws, 0, 2))


def test_directions_come_back_from_their_file(tmp_path, G, pca):
    pca.save(tmp_path / "x.safetensors")
    loaded = Directions.load(tmp_path / "x.safetensors", G)
    assert torch.equal(loaded.vectors, pca.vectors) and torch.equal(loaded.scales, pca.scales)
    assert (loaded.method, loaded.space, loaded.layers, loaded.num_ws) == ("pca", "w", None, G.num_ws)
    assert loaded.made_for(G)


def test_other_weights_are_known_and_other_sizes_refused(tmp_path, refuses, pca):
    pca.save(tmp_path / "x.safetensors")
    G = tiny_generator()
    G.mapping.fc0.weight.mul_(2)
    assert not Directions.load(tmp_path / "x.safetensors", G).made_for(G)
    larger = Generator(GeneratorConfig(resolution=32, z_dim=8, w_dim=8, channel_base=256, channel_max=12))
    with refuses("6 ws of length 8", "8 of length 8"):
        Directions.load(tmp_path / "x.safetensors", larger)


def test_damaged_files_and_files_of_another_kind_are_refused(tmp_path, refuses, G, pca):
    path = tmp_path / "x.safetensors"
    pca.save(path)
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    for content in (bytes(damaged), b"nothing"):
        path.write_bytes(content)
        with refuses("damaged", "analyze directions"):
            Directions.load(path, G)
    GaussianLatents.fit(G, 100).save(path)
    with refuses("another kind"):
        Directions.load(path, G)
    with pytest.raises(FileNotFoundError, match="analyze directions"):
        Directions.load(tmp_path / "y.safetensors", G)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"method": "styles", "space": "v"}, "styles in w"),
        ({"method": "magic"}, "pca in w or v"),
        ({"num": 9}, "1 to 8"),
        ({"num": 0}, "1 to 8"),
        ({"layers": [6]}, "0 to 5"),
        ({"method": "styles", "layers": [5]}, "tRGB alone"),
    ],
)
def test_choices_that_do_not_exist_are_refused(G, refuses, arguments, part):
    with refuses(part):
        find_directions(G, **{"num": 2, "num_samples": 100} | arguments)


def test_a_network_without_styles_has_no_directions_of_styles(refuses):
    config = {"resolution": 16, "z_dim": 8, "w_dim": 8, "channel_base": 256, "channel_max": 12}
    G = Generator(GeneratorConfig(**config, use_styles=False))
    with refuses("use_styles"):
        find_directions(G, method="styles", num=2, num_samples=100)


@pytest.mark.parametrize("index", [-1, 8])
def test_a_direction_that_is_not_there_is_refused(G, pca, refuses, index):
    with refuses(f"number {index}", "0 to 7"):
        pca.apply(generate_ws(G, [0]), index, 1)


def test_progress_counts_samples(G):
    calls = []
    find_directions(G, num=1, num_samples=5000, progress=lambda *call: calls.append(call))
    assert calls == [(4096, 5000), (5000, 5000)]
