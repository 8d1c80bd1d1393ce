"""Activation checkpointing: less memory for one more forward pass (Chen et al. 2016, Section 3)."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class _Network(Protocol):
    training: bool
    checkpoint_resolution: int | None


def recomputes(network: _Network, nominal: int) -> bool:
    """Whether a network's block of this nominal resolution is to compute its activations again.

    Only in training: elsewhere gradients are taken of few images, and nobody asks for less memory.
    """
    lowest = network.checkpoint_resolution
    return network.training and lowest is not None and nominal >= lowest


def run_block(block: nn.Module, *inputs: Any, recompute: bool) -> Tensor:
    """A block's result; with ``recompute`` its inputs alone are kept for the backward pass.

    Gradients are the same, also those of gradients, and random numbers that the block draws are drawn again.
    """
    if recompute and torch.is_grad_enabled():
        y: Tensor = checkpoint(block, *inputs, use_reentrant=False)  # the other kind cannot be differentiated twice
    else:
        y = block(*inputs)
    return y
