"""A threshold between two heaps of distances: ROC, AUC, and the error that is to be expected."""
# Shapes: n generated pictures, m real pictures, K thresholds.

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np


class ROC(NamedTuple):
    """What every threshold would do; the thresholds rise."""

    thresholds: np.ndarray
    """[K]: -infinity, and every distance there is."""
    false_positive: np.ndarray
    """[K]: share of the real pictures at or below the threshold, which would be called generated."""
    true_positive: np.ndarray
    """[K]: share of the generated ones at or below."""


@dataclass(kw_only=True, slots=True)
class Calibration:
    """Distances of pictures that a network made, and of real ones, to what the network can make of them."""

    generated: list[float]
    """Distances of generated pictures."""
    real: list[float]
    """Distances of real pictures that the network was not trained on."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How they were measured; distances made otherwise do not compare."""

    def __post_init__(self) -> None:
        for name in ("generated", "real"):
            values = getattr(self, name)
            if len(values) < 2 or not all(math.isfinite(value) for value in values):
                raise ValueError(
                    f"calibration: got {len(values)} distances of {name} pictures, expected 2 or more finite ones; "
                    "calibrate with more pictures"
                )

    @property
    def threshold(self) -> float:
        """Distances up to this one speak for the network."""
        return best_threshold(self.generated, self.real)

    @property
    def auc(self) -> float:
        """Area under the ROC curve: the chance that a generated picture is closer than a real one, ties half."""
        generated, real = np.array(self.generated)[:, None], np.array(self.real)
        return float((generated < real).mean() + (generated == real).mean() / 2)

    @property
    def error(self) -> float:
        """Share of wrong decisions, both kinds counting the same, where each picture is judged by the others.

        Leaving one out keeps the number honest: the threshold itself was chosen to do well on all of them.
        """
        missed = [x > best_threshold(_without(self.generated, i), self.real) for i, x in enumerate(self.generated)]
        accused = [x <= best_threshold(self.generated, _without(self.real, i)) for i, x in enumerate(self.real)]
        return float(np.mean(missed) + np.mean(accused)) / 2

    def roc(self) -> ROC:
        """The ROC curve."""
        return roc(self.generated, self.real)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON objects, what is computed included."""
        return {"threshold": self.threshold, "auc": self.auc, "error": self.error, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            ValueError: No distances, or too few.
        """
        try:
            return cls(generated=values["generated"], real=values["real"], settings=values["settings"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"calibration: got no distances ({error!r}), expected what Calibration.to_dict gave"
            ) from error


def roc(generated: list[float], real: list[float]) -> ROC:
    """What every threshold would do to distances of generated and of real pictures."""
    thresholds = np.concatenate([[-np.inf], np.unique([*generated, *real])])  # [K]
    below = [np.searchsorted(np.sort(values), thresholds, side="right") / len(values) for values in (real, generated)]
    return ROC(thresholds, *below)


def best_threshold(generated: list[float], real: list[float]) -> float:
    """The distance that tells best: fewest wrong decisions, both kinds counting the same.

    Between two distances every threshold does the same; this one lies in the middle, on a scale of ratios, of the
    widest gap among the best.
    """
    thresholds, false_positive, true_positive = roc(generated, real)
    gain = true_positive[1:-1] - false_positive[1:-1]  # at -infinity and at the largest distance it is 0
    if not len(gain):  # all distances are the same
        return float(thresholds[-1])
    lower, upper = thresholds[1:-1], thresholds[2:]
    best = gain >= gain.max() - 1e-12
    ratio = np.where(best, upper / np.maximum(lower, 1e-12), 0)
    i = int(ratio.argmax())
    return float(np.sqrt(max(lower[i], 1e-12) * upper[i]))


def _without(values: list[float], i: int) -> list[float]:
    return values[:i] + values[i + 1 :]
