import numpy as np
import pytest
import torch

from styleforge.metrics import draws

INDICES = [5, 0, 17, 3, 2**40]


@pytest.mark.parametrize(
    "draw",
    [
        lambda indices, seed=7, stream=1: draws.draw_z(seed, indices, 6, stream=stream),
        lambda indices, seed=7, stream=1: draws.draw_uniform(seed, indices, stream=stream),
        lambda indices, seed=7, stream=1: draws.draw_choice(seed, indices, 2**60, stream=stream),
    ],
    ids=["z", "uniform", "choice"],
)
def test_a_samples_numbers_follow_from_seed_stream_and_index_alone(draw):
    together = draw(INDICES)
    assert torch.equal(together, torch.cat([draw([index]) for index in INDICES]))
    assert torch.equal(together.flip(0), draw(INDICES[::-1]))
    assert torch.equal(together[:1], draw(np.array(INDICES)[:1]))
    assert not (together == draw(INDICES, seed=8)).any()
    assert not (together == draw(INDICES, stream=2)).any()
    assert len(together.unique()) == together.numel()


def test_no_sample_gives_an_empty_tensor():
    assert draws.draw_z(0, [], 4, stream=0).shape == (0, 4)
    assert draws.draw_uniform(0, [], stream=0).shape == draws.draw_choice(0, [], 3, stream=0).shape == (0,)


def test_the_first_numbers_of_z_do_not_depend_on_how_many_there_are():
    assert torch.equal(draws.draw_z(0, range(3), 700, stream=0)[:, :512], draws.draw_z(0, range(3), 512, stream=0))


def test_z_is_standard_normal_and_samples_are_independent():
    z = draws.draw_z(3, range(4000), 64, stream=draws.IMAGES).double()
    assert z.mean().abs() < 0.01
    for power, moment in ((2, 1), (3, 0), (4, 3)):
        assert abs(float((z**power).mean()) - moment) < 0.05
    for a, b in ((z[:, 0], z[:, 1]), (z[:-1, 0], z[1:, 0]), (z[:, 0], draws.draw_z(4, range(4000), 1, stream=0)[:, 0])):
        assert abs(float((a * b).mean())) < 4 / 4000**0.5


def test_uniform_numbers_and_choices_are_spread_evenly():
    uniform = draws.draw_uniform(0, range(10_000), stream=draws.PATH_TIMES)
    assert uniform.dtype == torch.float64 and uniform.min() >= 0 and uniform.max() < 1
    choices = draws.draw_choice(0, range(10_000), 10, stream=draws.LABELS)
    assert choices.dtype == torch.int64
    for counts in ((uniform * 10).long().bincount(minlength=10), choices.bincount(minlength=10)):
        assert len(counts) == 10 and (counts - 1000).abs().max() < 150  # five standard deviations


def test_numbers_are_the_same_with_every_version():
    """Published numbers depend on these."""
    assert draws.draw_z(0, [0, 1], 1, stream=draws.IMAGES).flatten().tolist() == [
        float.fromhex("-0x1.fc5f92p-3"),
        float.fromhex("0x1.6cf492p-2"),
    ]
    assert draws.draw_uniform(0, [0, 1], stream=draws.PATH_TIMES).tolist() == [0.8557245259574426, 0.27325584033980543]
    assert draws.draw_choice(0, range(5), 1000, stream=draws.LABELS).tolist() == [116, 16, 638, 152, 154]
