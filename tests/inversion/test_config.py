import dataclasses
import math

import pytest

from styleforge.inversion import ProjectionConfig

W, W_PLUS = ProjectionConfig.for_space("w"), ProjectionConfig.for_space("w+")


def test_the_defaults_are_published():
    assert (W.num_steps, W.learning_rate, W.optimize_noise) == (1000, 0.1, True)
    assert (W.num_samples, W.noise_weight, W.distance_size) == (10_000, 1e5, 256)
    assert (W_PLUS.num_steps, W_PLUS.learning_rate, W_PLUS.optimize_noise) == (10_000, 0.05, False)
    assert W.prior_weight == W_PLUS.prior_weight == 1e-4


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0),  # from zero …
        (1, 0.1 / 50),
        (25, 0.05),
        (50, 0.1),  # … linearly over the first 50
        (400, 0.1),
        (750, 0.1),  # and down over the last 250
        (875, 0.05),
        (1000 - 250 / 3, 0.025),  # 1/2 - 1/2 cos(pi / 3)
        (1000, 0),
    ],
)
def test_the_learning_rate_is_that_of_appendix_d(step, rate):
    assert W.learning_rate_at(step) == pytest.approx(rate, abs=1e-12)
    assert W_PLUS.learning_rate_at(10 * step) == pytest.approx(rate / 2, abs=1e-12)


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.05), (375, 0.05 / 4), (500, 0.05 / 9), (749, 0.05 / 750**2), (750, 0), (999, 0)]
)
def test_the_noise_on_w_falls_to_nothing_over_three_quarters(step, share):
    assert W.latent_noise_at(step) == pytest.approx(share, abs=1e-12)
    assert W_PLUS.latent_noise_at(10 * step) == pytest.approx(
        share if step != 749 else 0.05 * (10 / 7500) ** 2, abs=1e-12
    )


def test_schedules_without_ramps_are_constant():
    config = ProjectionConfig(num_steps=10, ramp_up=0, ramp_down=0, latent_noise_ramp=0)
    assert {config.learning_rate_at(step) for step in range(10)} == {0.1}
    assert {config.latent_noise_at(step) for step in range(10)} == {0}


def test_a_plateau_is_a_fall_of_less_than_its_share():
    config = ProjectionConfig(plateau=0.01, plateau_steps=3)
    assert not config.is_plateau([1, 1, 1])  # nothing to compare with
    assert config.is_plateau([1, 1, 1, 1])
    assert config.is_plateau([1, 1.5, 0.991, 2])
    assert not config.is_plateau([1, 0.989, 2, 2])
    assert not ProjectionConfig(plateau_steps=3).is_plateau([1, 1, 1, 1])
    assert config.first_late_step == 876


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("num_steps", 0, "--num-steps"),
        ("num_samples", 1, "2 or more"),
        ("ramp_up", 1.5, "a share from 0 to 1"),
        ("ramp_down", -0.1, "ramp_down"),
        ("latent_noise_ramp", math.nan, "latent_noise_ramp"),
        ("learning_rate", -1, "from 0 on"),
        ("noise_weight", math.inf, "noise_weight"),
        ("prior_weight", math.nan, "--prior-weight"),
        ("plateau", -1, "--plateau"),
        ("plateau_steps", 0, "plateau_steps"),
        ("restarts", -1, "--restarts"),
        ("restart_above", -1, "--restart-above"),
        ("distance_size", 4, "distance_size"),
    ],
)
def test_impossible_numbers_are_refused(refuses, field, value, flag):
    with refuses(field, str(value), flag):
        dataclasses.replace(W, **{field: value})


def test_another_space_is_refused(refuses):
    with refuses("space: got 'z'", "--space"):
        ProjectionConfig.for_space("z")
