"""Scale, noise, bias, activation, gain and clamp, in this order (Karras et al. 2020, Figure 2 and Appendix B).

The gain keeps the variance of a signal that goes through the activation: sqrt(2) for leaky ReLU, so that Eq. 3 of
the paper need not account for it.

The steps are one function for autograd, which keeps no more than its result (and its input where that is scaled), and
few passes over memory: one by a kernel, in place elsewhere, even over the input where nobody else needs it.
"""
# Shapes: N batch, C channels, H W image size.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge.ops.forward_mode import has_tangent
from styleforge.ops.kernels import Impl, takes_numba, uses_numba, uses_triton

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


SLOPES = {"linear": 1.0, "lrelu": LRELU_SLOPE, "relu": 0.0}
"""Activations that are a line on either side of 0, and their slope on the negative side; they can be fused."""


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    noise: Tensor | None = None,
    act: str = "linear",
    gain: float | None = None,
    clamp: float | None = None,
    dim: int = 1,
    inplace: bool = False,
    impl: Impl | Literal["numba", "reference"] = "auto",
) -> Tensor:
    """Scales feature maps, adds noise and a bias, applies an activation, multiplies by a gain, and clamps.

    Args:
        x: [N, C, …] and any float dtype; without scale and noise any shape.
        bias: [x.shape[dim]], or None.
        scale: [N, C]: factor on each feature map, such as Eq. 3's; None for none.
        noise: [N or 1, 1 or C, …], added after the scale; None for none.
        act: A key of `ACTIVATIONS`.
        gain: Factor on the activation; None takes the one that keeps the variance.
        clamp: Values are limited to [-clamp, clamp]; None leaves them.
        dim: The dimension that the bias runs along.
        inplace: Whether ``x``, which nobody else needs, may be overwritten, as it is where that saves memory and time.
        impl: ``reference`` does one step after the other. ``triton``, ``numba`` and ``torch`` do them together, for
            the keys of `SLOPES` and a bias along dimension 1: the same function, but for the gradient of values that
            meet the clamp exactly. ``auto`` takes what suits the device.

    Returns:
        The shape and dtype of ``x``; ``x`` itself where there is nothing to do.

    Raises:
        ValueError: Unknown activation or impl, a bias, scale or noise of another shape, or fusing what cannot be fused.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"act: got {act!r}, expected one of {', '.join(ACTIVATIONS)}; choose one of these")
    if impl not in (ways := ("auto", "triton", "numba", "torch", "reference")):
        raise ValueError(f"impl: got {impl!r}, expected one of {', '.join(ways)}; 'auto' always works")
    function, default_gain = ACTIVATIONS[act]
    gain = default_gain if gain is None else gain
    if bias is not None and bias.shape != (x.shape[dim],):
        raise ValueError(
            f"bias: got shape {list(bias.shape)}, expected [{x.shape[dim]}], the size of x along dim {dim}; "
            "hand in one value per channel"
        )
    if scale is not None and scale.shape != x.shape[:2]:
        raise ValueError(
            f"scale: got shape {list(scale.shape)}, expected {list(x.shape[:2])}; hand in one factor per sample and "
            "channel"
        )
    can_fuse = act in SLOPES and gain > 0 and x.ndim > 1 and dim % x.ndim == 1
    if noise is not None and not _fits(noise, x):
        raise ValueError(
            f"noise: got shape {list(noise.shape)}, expected [{len(x)} or 1, {x.shape[1]} or 1] and the pixels of x "
            f"{list(x.shape)}; hand in one noise map per sample, or one for all"
        )
    if impl == "auto" and act == "linear" and gain == 1 and all(s is None for s in (bias, scale, noise, clamp)):
        return x
    if impl == "auto" and (not can_fuse or torch.compiler.is_compiling() or has_tangent(x, bias, scale, noise)):
        impl = "reference"
    if impl != "reference":
        if not can_fuse:
            raise ValueError(
                f"impl: got {impl!r} for act {act!r}, gain {gain:g} and dim {dim}, expected 'auto' or 'reference', or "
                f"{', '.join(SLOPES)} with a gain above 0 and dim 1; 'auto' always works"
            )
        steps = _Steps(SLOPES[act], gain, clamp, _way(x, impl, scale, noise, bias))
        if torch.is_grad_enabled():
            y: Tensor = _Fused.apply(x, scale, noise, bias, steps, inplace and scale is None)
            return y
        return _forward(x, scale, noise, bias, steps, inplace)
    if scale is not None:
        x = x * _along(scale, x)
    if noise is not None:
        x = x + noise.to(x.dtype)
    if bias is not None:
        x = x + bias.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    x = function(x)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def _fits(noise: Tensor, x: Tensor) -> bool:
    """Whether noise is spread over x [N, C, …] in the ways that every ``impl`` knows."""
    return (
        noise.ndim == x.ndim
        and noise.shape[0] in (1, len(x))
        and noise.shape[1] in (1, x.shape[1])
        and noise.shape[2:] == x.shape[2:]
    )


Way = Literal["triton", "numba", "torch"]


def _way(
    x: Tensor,
    impl: Impl | Literal["numba"],
    scale: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
) -> Way:
    """How the steps are done together."""
    one_map = noise is None or noise.shape[1] == 1
    if impl == "numba":
        if not (x.ndim == 4 and one_map and takes_numba(x, scale, noise, bias)):
            raise ValueError(
                f"impl: got 'numba' for {list(x.shape)} of {x.dtype} on {x.device}, expected [N, C, H, W] of float32 "
                "or float64 on the CPU, and one noise map for all channels, where Numba works; 'auto' always works"
            )
        return "numba"
    if uses_triton(x, impl):
        return "triton"
    return "numba" if impl == "auto" and one_map and uses_numba(x, scale, noise, bias) else "torch"


@dataclass(frozen=True, slots=True)
class _Steps:
    """What is fused, besides tensors."""

    slope: float
    gain: float
    clamp: float | None
    way: Way


def _kernel(way: Way) -> ModuleType:
    """The module with ``forward`` and ``backward`` for a device."""
    if way == "triton":
        from styleforge.ops.kernels.gpu import bias_act as for_gpu

        return for_gpu
    from styleforge.ops.kernels.cpu import bias_act as for_cpu

    return for_cpu


def _along(values: Tensor, x: Tensor) -> Tensor:
    """[C] or [N, C] in the dtype of x [N, C, …], with dimensions for the pixels."""
    return values.to(x.dtype).reshape(*values.shape, *[1] * (x.ndim - 2))


def _forward(
    x: Tensor, scale: Tensor | None, noise: Tensor | None, bias: Tensor | None, steps: _Steps, inplace: bool
) -> Tensor:
    if steps.way != "torch":
        kernel = _kernel(steps.way)
        y: Tensor = kernel.forward(
            x, scale, noise, bias, slope=steps.slope, gain=steps.gain, clamp=steps.clamp, inplace=inplace
        )
        if y is x and not x.is_inference():
            torch.autograd.graph.increment_version(x)  # such that autograd knows who needs what was overwritten
        return y
    # The first step makes a new tensor, in the memory layout of x, unless it may overwrite x; the others work in place.
    y = x if inplace else torch.empty_like(x)
    addends = [] if noise is None else [noise.to(x.dtype)]
    if bias is not None:
        addends.append(_along(bias, x))
    if scale is not None:
        factor = _along(scale, x)
        torch.addcmul(addends.pop(0), x, factor, out=y) if addends else torch.mul(x, factor, out=y)
    elif addends:
        torch.add(x, addends.pop(0), out=y)
    elif not inplace:
        y.copy_(x)
    for addend in addends:
        y.add_(addend)
    if steps.slope == 0:  # a slope of 0 would make NaN of minus infinity
        y.relu_()
    elif steps.slope != 1:
        F.leaky_relu_(y, steps.slope)
    if steps.gain != 1:
        y.mul_(steps.gain)
    if steps.clamp is not None:
        y.clamp_(-steps.clamp, steps.clamp)
    return y


class _Fused(torch.autograd.Function):
    """All steps for autograd: the sign of the result tells the slope, its size whether it was clamped."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor | None,
        noise: Tensor | None,
        bias: Tensor | None,
        steps: _Steps,
        inplace: bool,
    ) -> Tensor:
        y = _forward(x, scale, noise, bias, steps, inplace)
        if y is x:
            ctx.mark_dirty(x)
        ctx.steps, ctx.shapes = steps, (None if noise is None else noise.shape, None if bias is None else bias.shape)
        ctx.save_for_backward(y, None if scale is None else x, scale)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        y, x, scale = ctx.saved_tensors
        steps, (noise_shape, bias_shape) = ctx.steps, ctx.shapes
        needs = ctx.needs_input_grad[:4]
        by_kernel = takes_numba(dy) if steps.way == "numba" else steps.way == "triton"
        if by_kernel and not torch.is_grad_enabled():
            gradients = _kernel(steps.way).backward(
                dy, y, x, scale, noise_shape, slope=steps.slope, gain=steps.gain, clamp=steps.clamp, needs=needs
            )
            return *gradients, None, None
        d = _derivative(dy, y.detach(), steps)  # but for the gain, which takes least time after the sums
        gain = steps.gain
        dnoise = _times(d.sum_to_size(noise_shape), gain) if needs[2] else None
        dbias = None
        if needs[3]:
            dbias = _times(d.sum_to_size(1, *bias_shape, *[1] * (d.ndim - 2)).reshape(bias_shape), gain)
        if scale is None:
            dx = None
            if needs[0]:  # d may be overwritten unless it is someone else's or will be differentiated
                dx = _times(d, gain) if d is dy or torch.is_grad_enabled() else d.mul_(gain)
            return dx, None, dnoise, dbias, None, None
        dx = d * _times(_along(scale, d), gain) if needs[0] else None
        dscale = None
        if needs[1]:
            dscale = (d * x).sum_to_size(*scale.shape, *[1] * (d.ndim - 2)).reshape(scale.shape)
            dscale = _times(dscale, gain)
        return dx, dscale, dnoise, dbias, None, None


def _times(x: Tensor, gain: float) -> Tensor:
    """X multiplied by the gain, or x itself where that is 1."""
    return x if gain == 1 else x * gain


def _derivative(dy: Tensor, y: Tensor, steps: _Steps) -> Tensor:
    """The gradient before activation and clamp from that after them, dy, and their result y; autograd knows the way."""
    d = dy if steps.slope == 1 else torch.ops.aten.leaky_relu_backward(dy, y, steps.slope, True)
    return d if steps.clamp is None else d.masked_fill(_clamped(y, steps.clamp), 0)


def _clamped(y: Tensor, clamp: float) -> Tensor:
    """Where the result has met the limit, which is compared as the type of y can hold it."""
    return y.abs() >= torch.tensor(clamp, dtype=y.dtype)
