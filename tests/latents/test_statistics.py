import numpy as np
import pytest
import torch
from tiny_generators import CASES, tiny_generator

from styleforge.latents import statistics
from styleforge.latents.statistics import moments, sample_w


def drawn(G, num_samples, **arguments):
    return torch.cat(list(sample_w(G, num_samples, **arguments)))


def labels_seen(G, num_samples, monkeypatch, **arguments):
    seen, map_z = [], G.mapping.map
    monkeypatch.setattr(G.mapping, "map", lambda z, c: seen.append(c) or map_z(z, c))
    drawn(G, num_samples, **arguments)
    return torch.cat(seen)


@pytest.mark.parametrize("sizes", [[1000], [1, 999], [400, 1, 599], [250] * 4])
def test_moments_are_those_of_all_chunks_together(sizes):
    samples = torch.randn(1000, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    mean, covariance = moments(samples.split(sizes))
    np.testing.assert_allclose(mean, samples.numpy().mean(0), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(samples.numpy().T), rtol=1e-12, atol=1e-13)


def test_moments_stay_exact_far_from_the_origin():
    samples = torch.randn(10_000, 3, dtype=torch.float64) * 1e-3 + 1e4  # sums of squares would lose all digits
    _, covariance = moments(samples.split(999))
    np.testing.assert_allclose(covariance, np.cov(samples.numpy().T), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("kind", CASES)
def test_w_are_the_mapping_networks(kind):
    G = tiny_generator(kind)
    c = torch.eye(G.c_dim)[2] if G.c_dim else None
    z = torch.from_numpy(np.random.default_rng(5).standard_normal((50, G.z_dim), dtype=np.float32))
    expected = G.mapping.map(z, None if c is None else c.expand(50, -1))
    torch.testing.assert_close(drawn(G, 50, seed=5, c=c), expected)


@pytest.mark.parametrize("kind", ["square", "conditional"])
def test_samples_follow_from_the_seed_and_not_from_the_size_of_the_chunks(kind, monkeypatch):
    G = tiny_generator(kind)
    whole = drawn(G, 1000, seed=3)
    assert torch.equal(whole, drawn(G, 1000, seed=3))
    assert not torch.equal(whole, drawn(G, 1000, seed=4))
    monkeypatch.setattr(statistics, "CHUNK", 77)
    chunks = list(sample_w(G, 1000, seed=3))
    assert [len(chunk) for chunk in chunks] == [77] * 12 + [76]
    torch.testing.assert_close(torch.cat(chunks), whole)
    torch.testing.assert_close(drawn(G, 100, seed=3), whole[:100])


def test_drawing_leaves_the_global_generators_alone():
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    drawn(tiny_generator("conditional"), 10)
    torch.manual_seed(0)  # what the fixture set, and tiny_generator changed
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_all_classes_are_drawn_alike(monkeypatch):
    G = tiny_generator("conditional")
    labels = labels_seen(G, 30_000, monkeypatch)
    assert (labels.sum(1) == 1).all() and labels.max() == 1
    assert ((labels.mean(0) - 1 / 3).abs() < 0.01).all()


def test_labels_are_drawn_from_those_given(monkeypatch):
    G = tiny_generator("conditional")
    given = torch.tensor([[0.5, 0.5, 0], [0, 0, 2]])
    labels = labels_seen(G, 1000, monkeypatch, c=given)
    picks = [(labels == label).all(1).sum().item() for label in given]
    assert sum(picks) == 1000 and min(picks) > 400


def test_labels_that_do_not_fit_are_refused(refuses):
    with refuses("c:", "unconditional"):
        drawn(tiny_generator(), 5, c=torch.eye(3))
    with refuses("c:", "[5, 3]"):
        drawn(tiny_generator("conditional"), 5, c=torch.eye(4))
