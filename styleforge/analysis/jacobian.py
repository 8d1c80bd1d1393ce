"""The Jacobian dG/dw: how far the picture moves as w does, in every direction (Karras et al. 2020, Figure 17)."""
# Shapes: N batch, L number of ws, W length of w, P numbers in a picture (channels · height · width), R rank.

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from styleforge.latents import default_batch
from styleforge.networks import Generator

EXACT_LIMIT = 2**28
"""Numbers in the Jacobian, W · P, up to which `suggested_rank` advises to make all of it: 1 GB in float32."""
LARGE_RANK = 64
"""How many singular values it advises for larger ones."""
OVERSAMPLING, POWER_ITERATIONS = 10, 2
"""Of the randomized decomposition (Halko et al. 2011)."""


def suggested_rank(G: Generator) -> int | None:
    """None where the whole Jacobian is affordable, else a number of singular values for the randomized way."""
    return None if G.w_dim * _num_pixels(G) <= EXACT_LIMIT else min(LARGE_RANK, G.w_dim)


def singular_values(
    G: Generator,
    w: Tensor,
    *,
    rank: int | None = None,
    noise_mode: str = "const",
    seed: int = 0,
    batch: int | None = None,
) -> Tensor:
    """Singular values of dG/dw, where w goes to every layer and pictures are in [-1, 1].

    Args:
        G: The generator; work is done on its device and in the float type of w.
        w: [W].
        rank: None for all of them, by forward-mode derivatives along every axis of w; a number for that many of the
            largest, by randomized decomposition, whose cost grows with it alone.
        noise_mode: ``const`` or ``none``.
        seed: Of the randomized decomposition.
        batch: Derivatives at a time.

    Returns:
        Falling, on the CPU: [min(W, P)], or [rank].

    Raises:
        ValueError: Another shape, a rank out of range, or noise that is random.
    """
    _require_w(G, w)
    if noise_mode == "random":
        raise ValueError(
            "noise_mode: got 'random', expected const or none, since pictures would differ without w (--noise-mode)"
        )
    most = min(G.w_dim, _num_pixels(G))
    if rank is not None and not 1 <= rank <= most:
        raise ValueError(f"rank: got {rank}, expected 1 to {most}, the number of singular values (--rank)")
    w = w.to(G.w_avg.device)
    if rank is None:
        axes = torch.eye(G.w_dim, dtype=w.dtype, device=w.device)
        return torch.linalg.svdvals(push(G, w.expand(len(axes), -1), axes, noise_mode, batch)).cpu()[:most]
    # Halko et al. 2011, Algorithms 4.4 and 5.1: a basis of where random vectors go, sharpened by going to and fro.
    sketch = min(rank + OVERSAMPLING, most)
    random = torch.randn(sketch, G.w_dim, generator=torch.Generator().manual_seed(seed), dtype=w.dtype).to(w.device)
    for _ in range(POWER_ITERATIONS + 1):
        images = push(G, w.expand(sketch, -1), random, noise_mode, batch)  # [R, P]
        basis = torch.linalg.qr(images.T).Q.T  # [R, P]
        pulled = pull(G, w, basis, noise_mode)  # [R, W]
        random = torch.linalg.qr(pulled.T).Q.T
    return torch.linalg.svdvals(pulled).cpu()[:rank]


@torch.no_grad()
def push(G: Generator, w: Tensor, tangents: Tensor, noise_mode: str = "const", batch: int | None = None) -> Tensor:
    """Derivatives of pictures along directions in w, exact: J · tangent, each at its own w.

    Samples of a batch do not touch each other, so that one forward pass in forward mode makes as many derivatives.

    Args:
        G: The generator.
        w: [N, W].
        tangents: [N, W].
        noise_mode: ``const`` or ``none``.
        batch: Derivatives at a time; None for a number by the picture's size.

    Returns:
        [N, P].
    """
    parts = []
    batch = batch or default_batch(G)
    for points, directions in zip(w.split(batch), tangents.split(batch), strict=True):
        with _forward_mode():
            dual = forward_ad.make_dual(points.contiguous(), directions.contiguous())
            img = G.synthesis(dual[:, None].expand(-1, G.num_ws, -1), noise_mode=noise_mode)
            tangent = forward_ad.unpack_dual(img).tangent
            parts.append(torch.zeros_like(img) if tangent is None else tangent.clone())
    return torch.cat(parts).flatten(1)


def pull(G: Generator, w: Tensor, cotangents: Tensor, noise_mode: str = "const") -> Tensor:
    """Gradients with respect to w [W] of weighted sums of pixels, cotangents [N, P]: Jᵀ · cotangent, [N, W]."""
    with torch.enable_grad():
        w = w.detach().requires_grad_()
        pixels = G.synthesis(w.expand(1, G.num_ws, -1), noise_mode=noise_mode).flatten()
        rows = [torch.autograd.grad(pixels, w, row, retain_graph=True)[0] for row in cotangents]
    return torch.stack(rows)


@contextlib.contextmanager
def _forward_mode() -> Iterator[None]:
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about how it compiles its formulas
        yield


def _num_pixels(G: Generator) -> int:
    height, width = G.config.size
    return G.img_channels * height * width


def _require_w(G: Generator, w: Tensor) -> None:
    if w.shape != (G.w_dim,):
        raise ValueError(f"w: got shape {list(w.shape)}, expected [{G.w_dim}]; give one w, such as ws[0, 0]")
