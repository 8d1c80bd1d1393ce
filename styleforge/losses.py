"""Losses of StyleGAN2's training (Karras et al. 2020, Appendix B): pure functions, one value per sample.

Multiplying by a weight, averaging, lazy intervals and the backward pass belong to the training loop.
"""
# Shapes: N batch, C image channels, H W image size, L number of ws, W length of w.

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic loss of the generator: -log sigmoid(D(G(z))) (Goodfellow et al. 2014).

    Args:
        fake_logits: [N, 1].

    Returns:
        [N].
    """
    return F.softplus(-fake_logits).squeeze(1)


def discriminator_loss(logits: Tensor, *, real: bool) -> Tensor:
    """Logistic loss of the discriminator: -log sigmoid(D(x)) for real, -log(1 - sigmoid(D(x))) for generated images.

    Args:
        logits: [N, 1].
        real: Which of the two.

    Returns:
        [N].
    """
    return F.softplus(-logits if real else logits).squeeze(1)


def r1_penalty(D: Callable[[Tensor], Tensor], img: Tensor) -> tuple[Tensor, Tensor]:
    """R1: the squared norm of the logit's gradient with respect to a real image (Mescheder et al. 2018).

    Args:
        D: Images [N, C, H, W] to logits [N, 1].
        img: Real images [N, C, H, W].

    Returns:
        (penalty [N], to be weighted by gamma / 2; logits [N, 1]).
    """
    img = img.detach().requires_grad_(True)
    logits = D(img)
    (gradient,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    return gradient.square().sum([1, 2, 3]), logits


def path_lengths(synthesis: Callable[[Tensor], Tensor], ws: Tensor, y: Tensor) -> Tensor:
    """Lengths ||J^T y|| of the generator's Jacobian, averaged over layers (Eq. 4 and Appendix B).

    Args:
        synthesis: ws [N, L, W] to images [N, C, H, W].
        ws: [N, L, W]; the gradient is taken with respect to it, so it must require one.
        y: Random images [N, C, H, W] from N(0, 1). They are divided by sqrt(H·W) here; with the mean over
            layers that turns the weight of Eq. 5 into 2 at every resolution.

    Returns:
        [N]: the square root of the mean over layers of the squared gradient norm.
    """
    img = synthesis(ws)
    y = y / math.sqrt(img.shape[2] * img.shape[3])
    (gradient,) = torch.autograd.grad((img * y).sum(), ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def path_length_penalty(lengths: Tensor, target: Tensor) -> Tensor:
    """(||J^T y|| - a)² (Eq. 4).

    Args:
        lengths: [N].
        target: The running mean a of lengths.

    Returns:
        [N].
    """
    return (lengths - target).square()
