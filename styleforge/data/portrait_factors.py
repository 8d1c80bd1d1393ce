"""What is random in a portrait: independent factors, each drawn from its own uniform number."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Factor:
    """One independent property of a portrait: a uniform range, or a choice among named values."""

    name: str
    """Identifier, as in ``factors.json``."""
    description: str
    """What it changes in the picture, with its unit."""
    low: float = 0.0
    """Smallest value of a range."""
    high: float = 1.0
    """Largest value of a range."""
    values: tuple[str, ...] = ()
    """Names of the choices; the factor's number is the position in this list. Empty for a range."""
    weights: tuple[float, ...] = ()
    """Probability of each choice; empty for equal ones."""

    def __post_init__(self) -> None:
        assert not self.weights or len(self.weights) == len(self.values), self.name
        assert not self.weights or abs(sum(self.weights) - 1) < 1e-9, self.name

    @property
    def kind(self) -> str:
        """``continuous`` or ``categorical``."""
        return "categorical" if self.values else "continuous"

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest number of the factor."""
        return (0.0, float(len(self.values) - 1)) if self.values else (self.low, self.high)

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Probability of each choice; empty for a range."""
        return self.weights or (1 / len(self.values),) * len(self.values) if self.values else ()

    def quantile(self, u: float) -> float:
        """The factor's number at a uniform number u in [0, 1): its inverse distribution function."""
        if self.values:
            thresholds = list(itertools.accumulate(self.probabilities[:-1]))
            return float(bisect.bisect_right(thresholds, u))
        return self.low + u * (self.high - self.low)


FACTORS: tuple[Factor, ...] = (
    Factor(name="yaw", low=-26, high=26, description="head turn in degrees, positive to the picture's right"),
    Factor(name="pitch", low=-14, high=14, description="head tilt in degrees, positive upwards"),
    Factor(name="face_shape", description="0 long with a narrow jaw, 1 round with a broad jaw"),
    Factor(name="skin", description="skin tone, 0 fair, 1 deep"),
    Factor(
        name="hair_style",
        values=("shaved", "short", "curly", "bob", "long", "bun"),
        weights=(0.10, 0.22, 0.16, 0.18, 0.20, 0.14),
        description="cut of the hair",
    ),
    Factor(
        name="hair_colour",
        values=("black", "brown", "chestnut", "ginger", "blond", "silver"),
        description="colour of hair, brows and beard",
    ),
    Factor(name="eye_colour", values=("brown", "green", "blue", "grey"), description="colour of the irises"),
    Factor(name="eye_openness", low=0.35, high=1, description="0 shut, 1 wide open"),
    Factor(name="gaze", low=-1, high=1, description="where the irises look, positive to the picture's right"),
    Factor(name="brows", low=-1, high=1, description="-1 lowered into a frown, 1 raised"),
    Factor(name="smile", low=-0.4, high=1, description="height of the corners of the mouth, negative when sad"),
    Factor(name="mouth_openness", description="0 closed, 1 wide open"),
    Factor(name="teeth", description="share of the open mouth that the upper teeth fill, 0 none, 1 most"),
    Factor(name="glasses", values=("none", "round", "square"), weights=(0.6, 0.2, 0.2), description="frames"),
    Factor(
        name="beard",
        values=("none", "stubble", "moustache", "full"),
        weights=(0.64, 0.12, 0.12, 0.12),
        description="facial hair",
    ),
    Factor(name="clothes", description="colour of the jumper along a ramp, 0 cream, 1 night blue"),
    Factor(name="background", description="colour of the wall along a ramp, 0 mint, 1 sand"),
    Factor(name="backdrop", values=("glow", "fade", "disc"), description="pattern of the wall"),
    Factor(name="light", low=-1, high=1, description="where the light comes from, positive from the picture's right"),
)
"""The factors, in the order of the numbers that `sample_factors` returns."""


def sample_factors(index: int, seed: int = 0) -> np.ndarray:
    """Draws the factors of one portrait of the endless dataset that a seed names.

    The numbers come from a counter-based generator keyed by (seed, index), so each portrait can be drawn alone and
    a small dataset is the beginning of a large one. They are rounded to four decimals, which JSON keeps exactly.

    Args:
        index: Position in the dataset, at least 0.
        seed: Dataset, at least 0.

    Returns:
        [F] float64, in the order of `FACTORS`; a choice is the position of its value.

    Raises:
        ValueError: The index or the seed is out of range.
    """
    for name, value in (("index", index), ("seed", seed)):
        if not 0 <= value < 2**64:
            raise ValueError(f"{name}: got {value}, expected a whole number from 0 to 2^64 - 1")
    stream = np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
    uniform = stream.random(len(FACTORS)).tolist()
    return np.array([round(factor.quantile(u), 4) for factor, u in zip(FACTORS, uniform, strict=True)])
