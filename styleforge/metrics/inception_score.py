"""Inception score (Salimans et al. 2016): are pictures clear, one by one, and varied, all together?"""
# Shapes: N samples, C classes.

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from styleforge.metrics.fid import Features, require_features

SPLITS = 10
"""Parts that are usual."""


def inception_score(logits: Features, *, splits: int = SPLITS, seed: int | None = 2020) -> tuple[float, float]:
    """The score exp(E KL(p(class | picture) ‖ p(class))), in float64, over parts of the samples.

    By default samples are shuffled first, as in torch-fidelity and with its seed, so that the parts of a sorted dataset
    have all classes. The official release does not shuffle; for generated pictures the two differ by chance alone.

    Args:
        logits: [N, C] before the softmax.
        splits: How many parts.
        seed: Of the shuffle; None takes samples as they come.

    Returns:
        (mean, standard deviation) over parts; a score lies between 1 and C.

    Raises:
        ValueError: Fewer than two samples for a part, or logits that are not finite.
    """
    if splits < 1:
        raise ValueError(f"inception score: got {splits} splits, expected at least 1; 10 are usual")
    require_features("logits", logits, at_least=2 * splits)
    N = len(logits)
    order = np.arange(N) if seed is None else np.random.RandomState(seed).permutation(N)
    x = torch.as_tensor(logits).detach().cpu()[torch.from_numpy(order)]
    scores = [_score(x[i * N // splits : (i + 1) * N // splits].double()) for i in range(splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: Tensor) -> float:
    log_p = logits.log_softmax(1)  # [N, C]
    log_q = log_p.logsumexp(0) - math.log(len(log_p))  # [C], finite even where every p is too small for a number
    divergence = (log_p.exp() * (log_p - log_q)).sum(1)  # [N]
    return float(divergence.mean().exp())
