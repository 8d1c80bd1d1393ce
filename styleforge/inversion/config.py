"""How a projection runs: its schedules and weights (Karras et al. 2020, Appendix D; Wulff & Torralba, Section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

Space = Literal["w", "w+"]
SPACES = ("w", "w+")
"""``w``: one w for all layers (Eq. 1 of Wulff & Torralba); ``w+``: one for each layer (Eq. 3)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectionConfig:
    """The numbers of a projection. The defaults are StyleGAN2's, for W; `for_space` has those for W+, too."""

    num_steps: int = 1000
    """Steps of Adam."""
    learning_rate: float = 0.1
    """The largest one."""
    ramp_up: float = 0.05
    """Share of the steps over which the learning rate rises linearly from 0."""
    ramp_down: float = 0.25
    """Share of the steps, at the end, over which it falls to 0 along a cosine."""
    latent_noise: float = 0.05
    """Standard deviation of the noise that is added to w, at the first step, in units of sigma_w."""
    latent_noise_ramp: float = 0.75
    """Share of the steps over which that noise falls to nothing, with the square of the time that is left."""
    num_samples: int = 10_000
    """Samples of w that mu_w, where a search starts, and sigma_w are measured on. With a prior it starts at the w of
    the mean v, where the energy is least; the mean w lies far off in V."""
    optimize_noise: bool = True
    """Whether the noise maps are found as well; otherwise they are the network's own."""
    noise_weight: float = 1e5
    """Weight alpha of the noise maps' autocorrelation; see `styleforge.inversion.noise.autocorrelation`."""
    prior_weight: float = 1e-4
    """Weight lambda of the prior's energy (Wulff & Torralba, Eq. 2 and 4), where there is a prior."""
    whiten: bool = True
    """With a prior: move along the principal axes of V in units of their standard deviations, instead of in w. The same
    optimum is reached in far fewer steps; see `styleforge.inversion.coordinates`."""
    distance_size: int = 256
    """Images with a longer side are averaged down to this one before they are compared."""
    plateau: float | None = None
    """Early stop: in the second half of the ramp-down, the search for a target ends when its lowest loss fell by less
    than this share over the last `plateau_steps` steps. None takes all steps."""
    plateau_steps: int = 25
    """See `plateau`."""
    restarts: int = 0
    """How often targets are started again, from a random w each time; the result of the lowest loss is kept."""
    restart_above: float | None = None
    """Start only those targets again whose distance is larger than this; None starts all."""

    def __post_init__(self) -> None:
        for name, smallest in (("num_steps", 1), ("num_samples", 2), ("plateau_steps", 1), ("restarts", 0)):
            _require(name, getattr(self, name) >= smallest, getattr(self, name), f"{smallest} or more")
        _require("distance_size", self.distance_size >= 8, self.distance_size, "8 or more pixels")
        for name in ("ramp_up", "ramp_down", "latent_noise_ramp"):
            _require(name, 0 <= getattr(self, name) <= 1, getattr(self, name), "a share from 0 to 1")
        for name in ("learning_rate", "latent_noise", "noise_weight", "prior_weight", "plateau", "restart_above"):
            value = getattr(self, name)
            _require(name, value is None or 0 <= value < math.inf, value, "a number from 0 on")

    @classmethod
    def for_space(cls, space: Space) -> Self:
        """The published numbers: Appendix D for ``w``, Section 3 of Wulff & Torralba for ``w+``.

        Raises:
            ValueError: Another space.
        """
        if space not in SPACES:
            raise ValueError(f"space: got {space!r}, expected w or w+ (--space)")
        return cls() if space == "w" else cls(num_steps=10_000, learning_rate=0.05, optimize_noise=False)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        t = step / self.num_steps
        up = min(1.0, t / self.ramp_up) if self.ramp_up else 1.0
        down = min(1.0, (1 - t) / self.ramp_down) if self.ramp_down else 1.0
        return self.learning_rate * up * (0.5 - 0.5 * math.cos(math.pi * down))

    def latent_noise_at(self, step: int) -> float:
        """Standard deviation of the noise on w at a step, in units of sigma_w: 0.05 · t², t falling from 1 to 0."""
        if not self.latent_noise_ramp:
            return 0.0
        t = max(0.0, 1 - step / (self.latent_noise_ramp * self.num_steps))
        return self.latent_noise * t**2

    @property
    def first_late_step(self) -> int:
        """From here on a plateau counts: w has no noise on it any more, and the learning rate is below half."""
        return int(self.num_steps * max(self.latent_noise_ramp, 1 - self.ramp_down / 2)) + 1

    def is_plateau(self, late_losses: Sequence[float]) -> bool:
        """Whether the losses since `first_late_step` say that going on would bring too little; see `plateau`."""
        if self.plateau is None or len(late_losses) <= self.plateau_steps:
            return False
        before, last = late_losses[: -self.plateau_steps], late_losses[-self.plateau_steps :]
        return min(last) > min(before) * (1 - self.plateau)


def _require(name: str, holds: bool, value: object, expected: str) -> None:
    if not holds:  # also for not-a-number, which compares to nothing
        raise ValueError(f"{name}: got {value}, expected {expected} (--{name.replace('_', '-')})")
