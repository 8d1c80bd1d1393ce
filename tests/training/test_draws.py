import pytest
import torch

from styleforge.networks import Generator
from styleforge.training.draws import Draws, draw, mix_styles, seed_of

from .tiny_runs import growing_config, tiny_config

CPU = torch.device("cpu")


@pytest.fixture
def G(tmp_path):
    return Generator(tiny_config(tmp_path).generator)


def drawn(G, samples, **changes):
    settings = {"seed": 3, "phase": "Gmain", "lod": 0.0, "device": CPU, "images": True}
    return draw(G, samples, **(settings | changes))


def rows(draws, indices):
    """Everything that samples were given, as one tensor [N, numbers]."""
    parts = [draws.z.transpose(0, 1), draws.mix, draws.crossover, *draws.noise]
    parts += [] if draws.y is None else [draws.y]
    return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)[indices]


def test_shapes_are_those_of_the_generator(G):
    draws = drawn(G, range(5))
    assert draws.z.shape == (2, 5, G.z_dim)
    assert draws.mix.shape == draws.crossover.shape == (5,)
    assert [tuple(noise.shape) for noise in draws.noise] == [(5, 1, r, r) for r in (4, 8, 8, 16, 16)]
    assert draws.y.shape == (5, 3, 16, 16)
    assert drawn(G, range(5), images=False).y is None


def test_noise_is_drawn_for_the_layers_that_take_part(tmp_path):
    G = Generator(growing_config(tmp_path).generator)
    assert [noise.shape[-1] for noise in drawn(G, [0], lod=2.0).noise] == [4, 8, 8]
    assert [noise.shape[-1] for noise in drawn(G, [0], lod=1.5).noise] == [4, 8, 8, 16, 16]


@pytest.mark.parametrize("images", [False, True])
def test_a_sample_gets_the_same_numbers_in_any_batch(G, images):
    whole = rows(drawn(G, range(100, 112), images=images), slice(None))
    for split in ([*range(12)], [3], [11, 0, 5], [*range(1, 12, 2)]):
        assert torch.equal(rows(drawn(G, [100 + i for i in split], images=images), slice(None)), whole[split])


def test_seed_phase_and_sample_decide(G):
    reference = rows(drawn(G, [5]), 0)
    for other in (drawn(G, [6]), drawn(G, [5], seed=4), drawn(G, [5], phase="Greg")):
        assert not torch.isclose(rows(other, 0), reference).any()


def test_the_global_random_state_neither_matters_nor_changes(G):
    before = torch.get_rng_state()
    first = rows(drawn(G, [5]), 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(rows(drawn(G, [5]), 0), first)


def test_numbers_are_normal_and_uniform(G):
    draws = drawn(G, range(2000))
    for normal in (draws.z[0], draws.z[1], draws.noise[0], draws.noise[-1], draws.y):
        assert abs(normal.mean()) < 0.02
        assert abs(normal.std() - 1) < 0.02
    for uniform in (draws.mix, draws.crossover):
        assert uniform.min() >= 0
        assert uniform.max() < 1
        counts = torch.histc(uniform, 10, 0, 1)
        assert ((counts - 200).abs() < 60).all()  # 4 standard deviations
    assert abs(torch.corrcoef(torch.stack([draws.mix, draws.crossover]))[0, 1]) < 0.08


def test_seeds_are_the_ones_of_the_first_release():
    """Runs of older versions must go on with the same numbers; these never change."""
    assert seed_of(0, "Gmain", 0) == 8885632002416074657
    assert seed_of(0, "networks") == 9142875214938067372
    seeds = {seed_of(a, b, c) for a in range(3) for b in ("Gmain", "Greg") for c in range(200)}
    assert len(seeds) == 1200
    assert all(0 <= seed < 2**63 for seed in seeds)


# Style mixing


def mixing(num, mix=None, crossover=None):
    generator = torch.Generator().manual_seed(0)
    return Draws(
        z=torch.zeros(2, num, 1),
        mix=torch.rand(num, generator=generator) if mix is None else mix,
        crossover=torch.rand(num, generator=generator) if crossover is None else crossover,
        noise=[],
        y=None,
    )


def crossovers(draws, probability, L, num_active):
    """The layer [N] at which each sample changes from the first w to the second; L where it does not."""
    num = len(draws.mix)
    mixed = mix_styles(torch.zeros(num, L, 2), torch.ones(num, L, 2), draws, probability, num_active)
    assert torch.equal(mixed[:, :, 0], mixed[:, :, 1])
    assert (mixed[:, 1:] >= mixed[:, :-1]).all()  # all layers from the crossover on
    return (mixed[:, :, 0] == 0).sum(1)


def test_the_crossover_is_uniform_over_the_layers():
    N, L = 34_000, 18
    places = crossovers(mixing(N), 1.0, L, L)
    counts = torch.bincount(places, minlength=L + 1)
    assert counts[0] == counts[L] == 0  # each w has at least one layer
    assert ((counts[1:L] - N / 17).abs() < 4.5 * (N / 17) ** 0.5).all()


def test_the_crossover_lies_within_the_layers_that_take_part():
    places = crossovers(mixing(1000), 1.0, 18, 6)
    assert set(places.tolist()) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.9, 1.0])
def test_samples_mix_with_the_given_probability(probability):
    mixed = crossovers(mixing(10_000), probability, 10, 10) < 10
    assert abs(mixed.float().mean() - probability) < 0.015


def test_the_largest_number_below_1_stays_within_the_layers():
    largest = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)).expand(1)
    for L in range(2, 40):
        draws = mixing(1, mix=torch.zeros(1), crossover=largest.clone())
        assert crossovers(draws, 0.9, L, L).item() == L - 1
