"""Bias, activation, gain and clamp, in this order (Karras et al. 2020, Figure 2 and Appendix B).

The gain keeps the variance of a signal that goes through the activation: sqrt(2) for leaky ReLU, so that Eq. 3 of
the paper need not account for it.
"""
# Shapes: N batch, C channels.

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LRELU_SLOPE = 0.2
"""Negative slope of every leaky ReLU of StyleGAN and StyleGAN2."""

ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "linear": (lambda x: x, 1.0),
    "lrelu": (lambda x: F.leaky_relu(x, LRELU_SLOPE), 2**0.5),
    "relu": (torch.relu, 2**0.5),
    "swish": (F.silu, 2**0.5),
    "tanh": (torch.tanh, 1.0),
    "sigmoid": (torch.sigmoid, 1.0),
    "softplus": (F.softplus, 1.0),
}
"""name -> (function, gain that goes with it by default)."""


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    act: str = "linear",
    gain: float | None = None,
    clamp: float | None = None,
    dim: int = 1,
) -> Tensor:
    """Adds a bias, applies an activation, multiplies by a gain, and clamps.

    Args:
        x: Any shape and float dtype.
        bias: [x.shape[dim]], or None.
        act: A key of `ACTIVATIONS`.
        gain: Factor on the activation; None takes the one that keeps the variance.
        clamp: Values are limited to [-clamp, clamp]; None leaves them.
        dim: The dimension that the bias runs along.

    Returns:
        The shape of ``x``.

    Raises:
        ValueError: Unknown activation, or a bias of another length.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"act: got {act!r}, expected one of {', '.join(ACTIVATIONS)}; choose one of these")
    function, default_gain = ACTIVATIONS[act]
    gain = default_gain if gain is None else gain
    if bias is not None:
        if bias.shape != (x.shape[dim],):
            raise ValueError(
                f"bias: got shape {list(bias.shape)}, expected [{x.shape[dim]}], the size of x along dim {dim}; "
                "hand in one value per channel"
            )
        x = x + bias.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    x = function(x)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)
