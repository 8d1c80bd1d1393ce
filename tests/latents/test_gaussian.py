import math

import numpy as np
import pytest
import scipy.stats
import torch
from tiny_generators import CASES, save_tiny, tiny_generator

from styleforge.latents.gaussian import (
    EIGENVALUE_FLOOR,
    GaussianLatents,
    activation_slope,
    compress_tails,
    mapping_sha256,
)
from styleforge.latents.statistics import sample_w
from styleforge.networks import Generator, GeneratorConfig


def fit(G, num_samples=2000, **arguments):
    return GaussianLatents.fit(G, num_samples, **arguments)


def random_gaussian(W=6, *, variances=None):
    """Any mean, axes and variances."""
    generator = torch.Generator().manual_seed(7)
    axes = torch.linalg.qr(torch.randn(W, W, generator=generator, dtype=torch.float64)).Q
    variances = torch.linspace(0.1, 4, W).double() if variances is None else variances
    mean = torch.randn(W, generator=generator, dtype=torch.float64)
    covariance = axes @ variances.diag() @ axes.T
    return GaussianLatents(mean=mean, covariance=covariance, num_samples=1000, mapping_sha256="")


def v_of(w):
    return np.where(w < 0, 5 * w, w)


@pytest.fixture(params=CASES)
def G(request):
    return tiny_generator(request.param)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gaussian"


# The fit


@pytest.mark.parametrize("style_block", ["demodulation", "instance"])
def test_the_fit_of_one_dense_layer_is_its_weights(style_block):
    """A normalised z is uniform on the sphere of radius sqrt(Z), of covariance 1, so that v has A Aᵀ about b."""
    config = GeneratorConfig(resolution=8, z_dim=12, w_dim=5, mapping_layers=1, style_block=style_block, channel_max=4)
    G = Generator(config).requires_grad_(False)
    layer = G.mapping.get_submodule("fc0")
    layer.bias.normal_(std=100)
    A = layer.weight.double() * 0.01 * math.sqrt(2 / 12)
    b = layer.bias.double() * 0.01 * (math.sqrt(2) if style_block == "demodulation" else 1)
    N = 100_000
    gaussian = GaussianLatents.fit(G, N)
    variances = (A @ A.T).diag()
    assert ((gaussian.mean - b).abs() < 5 * (variances / N).sqrt()).all()
    assert ((gaussian.covariance - A @ A.T).abs() < 7 * (variances.outer(variances) / N).sqrt()).all()


def test_without_a_mapping_network_v_is_w():
    G = Generator(GeneratorConfig(resolution=8, z_dim=6, w_dim=6, mapping_layers=0, channel_max=4))
    gaussian = GaussianLatents.fit(G, 50_000)
    w = torch.randn(4, 6)
    assert activation_slope(G) == 1
    assert torch.equal(gaussian.w_to_v(w), w) and torch.equal(gaussian.v_to_w(w), w)
    torch.testing.assert_close(gaussian.covariance, torch.eye(6).double(), atol=0.02, rtol=0)


def test_the_fit_has_the_moments_of_v_in_two_passes(G):
    gaussian = fit(G, 5000, seed=4)
    v = v_of(torch.cat(list(sample_w(G, 5000, 4))).double().numpy())
    np.testing.assert_allclose(gaussian.mean, v.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gaussian.covariance, np.cov(v.T), rtol=1e-5, atol=1e-7)
    assert gaussian.mean.dtype == gaussian.covariance.dtype == torch.float64


def test_the_same_seed_gives_the_same_fit():
    G = tiny_generator()
    first, second, other = fit(G), fit(G), fit(G, seed=1)
    assert torch.equal(first.mean, second.mean) and torch.equal(first.covariance, second.covariance)
    assert not torch.equal(first.mean, other.mean)


def test_a_class_has_a_fit_of_its_own():
    G = tiny_generator("conditional")
    classes = [fit(G, 20_000, c=label) for label in torch.eye(3)]
    means = torch.stack([gaussian.mean for gaussian in classes])
    mixture = fit(G, 20_000)
    between = (means - means.mean(0)).T @ (means - means.mean(0)) / 3
    expected = torch.stack([gaussian.covariance for gaussian in classes]).mean(0) + between  # law of total variance
    scale = expected.diag().sqrt()
    assert ((mixture.mean - means.mean(0)).abs() < 0.05 * scale).all()
    assert ((mixture.covariance - expected).abs() < 0.05 * scale.outer(scale)).all()
    assert (means[0] - means[1]).norm() > 0.1 * scale.norm()


def test_progress_counts_samples():
    calls = []
    fit(tiny_generator(), 9000, progress=lambda *call: calls.append(call))
    assert calls == [(4096, 9000), (8192, 9000), (9000, 9000)]


def test_too_few_samples_are_refused(refuses):
    with refuses("num_samples: got 8", "more than the 8 dimensions", "take 100000"):
        fit(tiny_generator(), 8)
    assert fit(tiny_generator(), 9).num_samples == 9


@pytest.mark.parametrize("value", [0, float("nan"), float("inf")])
def test_a_broken_mapping_network_is_refused(refuses, value):
    G = tiny_generator()
    G.mapping.get_submodule("fc1").weight.fill_(value)
    with refuses("not finite or all the same", "earlier snapshot"):
        fit(G)


# W and V


def test_v_undoes_the_activation_and_w_does_it_again():
    gaussian = random_gaussian(3)
    w = torch.tensor([[-1.0, 0.0, 2.0]])
    assert gaussian.w_to_v(w).tolist() == [[-5, 0, 2]]
    assert torch.equal(gaussian.v_to_w(gaussian.w_to_v(w)), w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(50, 6), (20, 4, 6)])
def test_both_ways_are_inverses_to_the_last_rounding(dtype, shape):
    gaussian, x = random_gaussian(), torch.randn(shape, dtype=dtype)
    exact = {"atol": 0, "rtol": torch.finfo(dtype).eps}
    torch.testing.assert_close(gaussian.v_to_w(gaussian.w_to_v(x)), x, **exact)
    torch.testing.assert_close(gaussian.w_to_v(gaussian.v_to_w(x)), x, **exact)


# The energy


def test_the_energy_is_the_exponent_of_scipys_density():
    gaussian, W = random_gaussian(), 6
    w = torch.randn(40, W, dtype=torch.float64)
    density = scipy.stats.multivariate_normal(gaussian.mean.numpy(), gaussian.covariance.numpy())
    constant = W * math.log(2 * math.pi) + np.linalg.slogdet(gaussian.covariance.numpy())[1]
    np.testing.assert_allclose(gaussian.energy(w), -2 * density.logpdf(v_of(w.numpy())) - constant, rtol=1e-9)


def test_the_energy_of_layers_is_their_sum():
    gaussian, ws = random_gaussian(), torch.randn(5, 4, 6)
    expected = torch.stack([gaussian.energy(ws[:, i]) for i in range(4)]).sum(0)
    assert gaussian.energy(ws).shape == (5,)
    torch.testing.assert_close(gaussian.energy(ws), expected)


def test_the_fitted_samples_have_w_dim_on_average(G):
    gaussian, N = fit(G, 500), 500
    mean_energy = gaussian.energy(torch.cat(list(sample_w(G, N))).double()).mean().item()
    assert mean_energy == pytest.approx(G.w_dim * (N - 1) / N, rel=1e-4)  # exactly so, whatever the distribution


@pytest.mark.parametrize("shape", [(3, 6), (2, 3, 6)])
def test_the_gradient_of_the_energy_is_right(shape):
    ws = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(random_gaussian().energy, ws)
    assert torch.autograd.gradgradcheck(random_gaussian().energy, ws)


def test_the_gradient_in_float32_is_that_of_float64_for_variances_far_apart():
    gaussian = random_gaussian(8, variances=torch.logspace(-6, 1, 8).double())
    w = torch.randn(4, 8, requires_grad=True)
    energy = gaussian.energy(w)
    assert energy.dtype == torch.float32
    (gradient,) = torch.autograd.grad(energy.sum(), w)
    v, slope = v_of(w.detach().double().numpy()), np.where(w.detach().numpy() < 0, 5, 1)
    expected = 2 * np.linalg.solve(gaussian.covariance.numpy(), (v - gaussian.mean.numpy()).T).T * slope
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_a_direction_without_variance_costs_much_but_not_infinitely_much():
    gaussian = random_gaussian(4, variances=torch.tensor([0, 0.5, 1, 2]).double())
    _, axes = gaussian.principal_axes()
    at = gaussian.mean[None] + torch.eye(4).double() @ axes.T  # one step along each axis
    expected = [1 / 2, 1, 1 / 0.5, 1 / (EIGENVALUE_FLOOR * 2)]
    np.testing.assert_allclose(gaussian.energy(gaussian.v_to_w(at)), expected, rtol=1e-5)


def test_a_network_with_a_dead_unit_has_finite_energies():
    G = tiny_generator()
    for parameter in (G.mapping.get_submodule("fc1").weight, G.mapping.get_submodule("fc1").bias):
        parameter[3] = 0
    w = torch.cat(list(sample_w(G, 1000)))
    energies = fit(G).energy(w)
    assert energies.mean().item() == pytest.approx(7, rel=0.1)  # the other 7 of 8 dimensions
    assert energies.isfinite().all()


@pytest.mark.parametrize("shape", [(6,), (2, 5), (2, 6, 5), ()])
def test_latents_of_another_network_are_refused(refuses, shape):
    for method in (random_gaussian().energy, lambda ws: random_gaussian().compress(ws, 1)):
        with refuses(f"ws: got shape {list(shape)}", "[N, 6] or [N, L, 6]"):
            method(torch.zeros(shape))


# Principal axes and compression


def test_principal_axes_take_the_covariance_apart(G):
    gaussian = fit(G)
    variances, axes = gaussian.principal_axes()
    assert (variances.diff() <= 0).all() and (variances >= 0).all()
    torch.testing.assert_close(axes.T @ axes, torch.eye(G.w_dim).double())
    torch.testing.assert_close(axes @ variances.diag() @ axes.T, gaussian.covariance)
    assert (axes.amax(0) == axes.abs().amax(0)).all()  # the sign of an axis is no matter of chance


def test_compression_is_equation_6():
    gaussian, tau = random_gaussian(), 0.8
    ws = 2 * torch.randn(200, 3, 6, dtype=torch.float64)
    eigenvalues, E = np.linalg.eigh(gaussian.covariance.numpy())
    limit = tau * math.sqrt(eigenvalues.max())
    v_p = (v_of(ws.numpy()) - gaussian.mean.numpy()) @ E
    beyond = np.abs(v_p) > limit
    v_p[beyond] = np.sign(v_p[beyond]) * limit * (np.log(np.abs(v_p[beyond]) / limit) + 1)
    v = v_p @ E.T + gaussian.mean.numpy()
    np.testing.assert_allclose(gaussian.compress(ws, tau), np.where(v < 0, 0.2 * v, v), rtol=1e-9, atol=1e-12)
    assert 0.1 < beyond.mean() < 0.9


def test_tails_are_compressed_smoothly_and_in_order():
    x = torch.linspace(-50, 50, 100_001, dtype=torch.float64)
    y = compress_tails(x, 3.0)
    assert torch.equal(y[x.abs() <= 3], x[x.abs() <= 3])
    assert (y.diff() > 0).all()
    assert (y[x.abs() > 3].abs() < x[x.abs() > 3].abs()).all()
    torch.testing.assert_close(y, -y.flip(0))
    edge = torch.tensor([3 - 1e-9, 3, 3 + 1e-9, -3 - 1e-9], dtype=torch.float64, requires_grad=True)
    value = compress_tails(edge, 3.0)
    torch.testing.assert_close(value, edge, atol=1e-12, rtol=0)
    (slope,) = torch.autograd.grad(value.sum(), edge)
    torch.testing.assert_close(slope, torch.ones(4, dtype=torch.float64), atol=1e-8, rtol=0)


def test_what_lies_within_the_threshold_comes_back_bit_for_bit(G):
    gaussian, w = fit(G), torch.cat(list(sample_w(G, 300, seed=9)))
    ws = w[:, None].repeat(1, 3, 1)
    for tau in (1e6, math.inf):
        assert torch.equal(gaussian.compress(ws, tau), ws)
    same = (gaussian.compress(ws, 1.5) == ws).all(-1)  # [300, 3]
    variances, axes = gaussian.principal_axes()
    components = (gaussian.w_to_v(w).double() - gaussian.mean) @ axes
    within = (components.abs() <= 1.5 * variances[0].sqrt()).all(-1)
    assert torch.equal(same, within[:, None].expand(-1, 3))
    assert 0 < within.sum() < 300


def test_each_layer_is_compressed_on_its_own():
    gaussian, ws = random_gaussian(), 3 * torch.randn(4, 2, 3, 6)
    expected = gaussian.compress(ws.reshape(-1, 6), 0.5).reshape(ws.shape)
    torch.testing.assert_close(gaussian.compress(ws, 0.5), expected)
    assert expected.dtype == torch.float32


def test_the_gradient_of_the_compression_is_right():
    ws = (2 * torch.randn(3, 6, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: random_gaussian().compress(x, 0.5), ws)
    at_the_mean = random_gaussian().v_to_w(random_gaussian().mean[None]).requires_grad_()
    (gradient,) = torch.autograd.grad(random_gaussian().compress(at_the_mean, 1).sum(), at_the_mean)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("tau", [0, -1, math.nan])
def test_a_threshold_that_is_not_above_zero_is_refused(refuses, tau):
    with refuses(f"tau: got {tau}", "above 0", "--compress"):
        random_gaussian().compress(torch.zeros(1, 6), tau)


# Files


def test_a_fit_comes_back_from_its_file(tmp_path, G):
    gaussian, path = fit(G), tmp_path / "deep" / "v.safetensors"
    gaussian.save(path)
    again = GaussianLatents.load(path, G)
    assert torch.equal(again.mean, gaussian.mean) and torch.equal(again.covariance, gaussian.covariance)
    assert (again.slope, again.num_samples) == (gaussian.slope, 2000)
    w = torch.randn(3, G.w_dim)
    assert torch.equal(again.energy(w), gaussian.energy(w))
    assert [file.name for file in path.parent.iterdir()] == ["v.safetensors"]


def test_a_file_of_another_network_is_refused(tmp_path, refuses):
    path = tmp_path / "v.safetensors"
    fit(tiny_generator()).save(path)
    G = tiny_generator()
    G.mapping.get_submodule("fc0").bias[0] += 1
    for other in (G, tiny_generator("conditional"), tiny_generator("config-a")):
        with refuses(str(path), "another network"):
            GaussianLatents.load(path, other)


def test_the_networks_mark_is_that_of_its_mapping_alone():
    mark = mapping_sha256(tiny_generator())
    G = tiny_generator("gray")  # of the same mapping network, which is drawn first
    G.w_avg.fill_(3)
    assert mapping_sha256(G) == mark
    G.mapping.get_submodule("fc1").weight[0, 0] += 1e-3
    assert mapping_sha256(G) != mark
    G = tiny_generator()
    G.config.mapping_lr_multiplier = 1.0
    assert mapping_sha256(G) != mark


def test_files_that_are_damaged_or_of_another_kind_are_refused(tmp_path, refuses):
    G, path = tiny_generator(), tmp_path / "v.safetensors"
    fit(G).save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    for contents in (whole[:-10], bytes(flipped), b"", b"text", (tmp_path / save_tiny(tmp_path)).read_bytes()):
        path.write_bytes(contents)
        with refuses(str(path), "damaged or of another kind", "fit it again"):
            GaussianLatents.load(path, G)
    with pytest.raises(FileNotFoundError, match="there is no such file, expected"):
        GaussianLatents.load(tmp_path / "none.safetensors", G)


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="could not be written"):
        fit(tiny_generator()).save(tmp_path / "file" / "v.safetensors")


def test_a_fit_is_kept_in_the_cache(cache, monkeypatch):
    G = tiny_generator()
    first = GaussianLatents.fit_cached(G, 2000)
    (file,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(GaussianLatents, "fit", None)
        assert torch.equal(GaussianLatents.fit_cached(G, 2000).covariance, first.covariance)
    for other in ({"seed": 1}, {"num_samples": 3000}):
        GaussianLatents.fit_cached(G, **{"num_samples": 2000} | other)
    GaussianLatents.fit_cached(tiny_generator("conditional"), 2000)
    assert len(list(cache.iterdir())) == 4
    file.write_bytes(file.read_bytes()[:-1])
    assert torch.equal(GaussianLatents.fit_cached(G, 2000).covariance, first.covariance)
    assert torch.equal(GaussianLatents.load(file, G).covariance, first.covariance)


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "file"))
    assert GaussianLatents.fit_cached(tiny_generator(), 2000).num_samples == 2000
