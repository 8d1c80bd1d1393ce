"""What changes as training goes on: level of detail, batch size, learning rates, the average's half-life."""

from __future__ import annotations

import math

from styleforge.training.config import TrainConfig


def lod_at(config: TrainConfig, cur_nimg: int) -> float:
    """Level of detail after so many images: each resolution trains, then the next fades in (Appendix B).

    Args:
        config: The run's config.
        cur_nimg: Real images shown so far.

    Returns:
        0 at full resolution; fractions while a resolution fades in.
    """
    growing = config.growing
    if growing is None:
        return 0.0
    plan = config.generator.plan
    first = max(plan.nominal[-1] // growing.start_resolution, 1).bit_length() - 1
    phase, rest = divmod(cur_nimg / 1000, growing.train_kimg + growing.fade_kimg)
    fade = max(rest - growing.train_kimg, 0.0) / growing.fade_kimg if growing.fade_kimg else 0.0
    return max(first - phase - fade, 0.0)


def _nominal_resolution(config: TrainConfig, lod: float) -> int:
    return config.generator.plan.nominal[-1] >> math.floor(lod)


def batch_at(config: TrainConfig, lod: float) -> int:
    """Images per step at a level of detail."""
    if config.growing is None:
        return config.batch
    return config.batch * config.growing.batch_factor_by_resolution.get(_nominal_resolution(config, lod), 1)


def learning_rates_at(config: TrainConfig, lod: float) -> tuple[float, float]:
    """Learning rates of generator and discriminator at a level of detail, before the lazy correction."""
    if config.growing is None:
        return config.g_lr, config.d_lr
    lr = config.growing.lr_by_resolution.get(_nominal_resolution(config, lod))
    return (config.g_lr, config.d_lr) if lr is None else (lr, lr)


def resets_optimizers(before: float, after: float) -> bool:
    """Whether optimizers start afresh between two levels of detail: when a fade begins or ends (Appendix B)."""
    return math.floor(before) != math.floor(after) or math.ceil(before) != math.ceil(after)


def ema_decay_at(config: TrainConfig, cur_nimg: int, batch: int) -> float:
    """Factor on the averaged weights in one step of ``batch`` images."""
    half_life = config.ema_kimg * 1000
    if config.ema_rampup is not None:
        half_life = min(half_life, cur_nimg * config.ema_rampup)
    return 0.5 ** (batch / half_life) if half_life > 0 else 0.0
