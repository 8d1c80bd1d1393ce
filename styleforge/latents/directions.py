"""Directions in the latent space that change a picture in one way: found without labels, kept in a file, applied to ws.

Principal axes of W or V (Härkönen et al. 2020) are where latents vary most; the eigenvectors of the styles' weights are
where the styles do ("closed-form factorization", Shen & Zhou 2021).
"""
# Shapes: N batch, L number of ws, W length of w, D number of directions, I number of styles.

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from styleforge.files import atomic_path
from styleforge.latents.gaussian import GaussianLatents, activation_slope, falling_eigen, mapping_sha256, sha256_of
from styleforge.latents.statistics import moments, sample_w
from styleforge.networks import Generator
from styleforge.networks.layers import FullyConnected
from styleforge.networks.style_layers import AdaINLayer, ModulatedLayer
from styleforge.networks.synthesis import StyleLayer

FORMAT = "styleforge directions 1"

Method = Literal["pca", "styles"]
Space = Literal["w", "v"]


@dataclass(kw_only=True, eq=False)
class Directions:
    """Directions, the most important first; made by `find_directions`."""

    method: Method
    """``pca``: principal axes of the latents. ``styles``: closed-form factorization of the styles' weights."""
    space: Space
    """Where the directions are straight: ``w``, or ``v`` = LeakyReLU_5(w)."""
    vectors: Tensor
    """[D, W] float32, of length 1; the largest entry of each is positive."""
    scales: Tensor
    """[D] float32: standard deviation of the network's latents along each, the unit of strength."""
    shares: Tensor
    """[D] float32: share of each in what the method maximises, of all W directions."""
    layers: list[int] | None
    """The ws that are moved, from 0; None for all."""
    num_ws: int
    """L of the network."""
    slope: float
    """Negative slope of the mapping network's last activation."""
    mapping_sha256: str
    """Whose: `gaussian.mapping_sha256` of the network."""

    def apply(self, ws: Tensor, index: int, strength: float | Tensor) -> Tensor:
        """Moves ws along a direction.

        Args:
            ws: [..., L, W] of a network of the same sizes.
            index: Which, from 0.
            strength: In standard deviations of the network's latents, either way; or a tensor that broadcasts with ws.

        Returns:
            The shape of ``ws``; at strength 0, ``ws`` up to rounding, and in W exactly.

        Raises:
            ValueError: There is no such direction.
        """
        if not 0 <= index < len(self.vectors):
            raise ValueError(
                f"direction: got number {index}, expected 0 to {len(self.vectors) - 1}, as the file has them "
                "(--direction FILE:INDEX)"
            )
        step = (self.scales[index] * self.vectors[index]).to(ws) * (
            strength.to(ws) if isinstance(strength, Tensor) else strength
        )
        if self.space == "v":
            moved = F.leaky_relu(F.leaky_relu(ws, 1 / self.slope) + step, self.slope)
        else:
            moved = ws + step
        if self.layers is None:
            return moved
        chosen = torch.zeros(self.num_ws, 1, dtype=torch.bool, device=ws.device)  # [L, 1]
        chosen[self.layers] = True
        return torch.where(chosen, moved, ws)

    def made_for(self, G: Generator) -> bool:
        """Whether a generator has the mapping network that the directions were found in, not only its sizes."""
        return self.mapping_sha256 == mapping_sha256(G)

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file, atomically; nothing in it can execute code.

        Raises:
            OSError: It cannot be written; an older one of the same name stays as it was.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        tensors = {name: getattr(self, name).contiguous() for name in ("vectors", "scales", "shares")}
        fields = ("method", "space", "layers", "num_ws", "slope", "mapping_sha256")
        header = json.dumps({name: getattr(self, name) for name in fields})
        metadata = {"format": FORMAT, "header": header, "sha256": sha256_of(header, tensors)}
        try:
            with atomic_path(path) as temporary:
                save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:  # wraps what the system says
            raise OSError(f"{path}: could not be written ({error}); is the disk full?") from error

    @classmethod
    def load(cls, path: str | Path, G: Generator) -> Self:
        """Reads what `save` wrote.

        Args:
            path: The file.
            G: The generator whose ws are to be moved. Its sizes must fit; its weights may be others, as after further
                training, see `made_for`.

        Raises:
            ValueError: The file is damaged, of another kind, or of a network with other sizes.
            OSError: There is no such file, or it cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(
                f"{path}: there is no such file, expected one of directions, as `styleforge analyze directions` makes"
            )
        metadata: dict[str, str] = {}
        tensors: dict[str, Tensor] = {}
        with contextlib.suppress(SafetensorError), safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") == FORMAT:
                tensors = {name: file.get_tensor(name) for name in ("vectors", "scales", "shares")}
        header = metadata.get("header", "")
        if not tensors or metadata.get("sha256") != sha256_of(header, tensors):
            raise ValueError(
                f"{path}: got a file that is damaged or of another kind, expected one of directions; make it with "
                "`styleforge analyze directions`"
            )
        fields: dict[str, Any] = {**json.loads(header), **tensors}
        directions = cls(**fields)
        width = directions.vectors.shape[1]
        if (directions.num_ws, width) != (G.num_ws, G.w_dim):
            raise ValueError(
                f"{path}: got directions for {directions.num_ws} ws of length {width}, expected {G.num_ws} of length "
                f"{G.w_dim}; use the network that they were found in (--direction)"
            )
        return directions


def find_directions(
    G: Generator,
    *,
    method: Method = "pca",
    space: Space = "w",
    num: int = 10,
    layers: Sequence[int] | None = None,
    num_samples: int = 100_000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Directions:
    """Finds directions in a generator's latent space, without any labels.

    Args:
        G: The generator; work is done on its device.
        method: ``pca`` or ``styles``.
        space: ``w``, or ``v`` for principal axes of the Gaussianized space.
        num: How many.
        layers: The ws that they are to move, from 0; None for all. ``styles`` takes the weights of these layers.
        num_samples: Samples of w, for the standard deviations; more than w is long.
        seed: Of the samples.
        progress: Called with (done, total) samples.

    Raises:
        ValueError: A choice that does not exist, or a network that has no styles.
    """
    if method not in get_args(Method) or space not in get_args(Space) or (method == "styles" and space == "v"):
        raise ValueError(
            f"directions: got method {method!r} in space {space!r}, expected pca in w or v, or styles in w "
            "(--method, --space)"
        )
    if not 1 <= num <= G.w_dim:
        raise ValueError(f"num: got {num} directions, expected 1 to {G.w_dim}, the length of w (--num)")
    if layers is not None and not all(0 <= layer < G.num_ws for layer in layers):
        raise ValueError(f"layers: got {list(layers)}, expected numbers from 0 to {G.num_ws - 1} (--layers)")
    if space == "v":
        gaussian = GaussianLatents.fit(G, num_samples, seed, progress=progress)
        values, axes = gaussian.principal_axes()
        variances = values
    else:
        _, covariance = moments(_counted(G, num_samples, seed, progress))
        if method == "styles":
            weights = style_weights(G, layers)  # [I, W]
            values, axes = falling_eigen(weights.T @ weights)
        else:
            values, axes = falling_eigen(covariance)
        variances = (axes.T @ covariance @ axes).diagonal()
    return Directions(
        method=method,
        space=space,
        vectors=axes.T[:num].float().contiguous(),
        scales=variances[:num].clamp(min=0).sqrt().float(),
        shares=(values / values.sum())[:num].float(),
        layers=None if layers is None else sorted(set(layers)),
        num_ws=G.num_ws,
        slope=activation_slope(G),
        mapping_sha256=mapping_sha256(G),
    )


@torch.no_grad()
def style_weights(G: Generator, layers: Sequence[int] | None = None) -> Tensor:
    """The matrices that make styles of w, of some layers below one another: [I, W] float64 on the CPU.

    Raises:
        ValueError: There are none.
    """
    numbered = enumerate(layer for block in G.synthesis.blocks for layer in block.style_layers)
    axes, parts = torch.eye(G.w_dim, device=G.w_avg.device), []
    for number, layer in numbered:
        affine = _affine(layer)
        if affine is not None and (layers is None or number in layers):
            parts.append((affine(axes) - affine(torch.zeros_like(axes[:1]))).T)  # [I, W]
    if not parts:
        raise ValueError(
            "layers: got none with styles, expected some of a network that has them (use_styles), of which the last w, "
            "that of tRGB alone, is not one (--layers)"
        )
    return torch.cat(parts).cpu().double()


def _affine(layer: StyleLayer) -> FullyConnected | None:
    """What makes a layer's styles of w, if it has any."""
    if isinstance(layer, ModulatedLayer):
        return layer.affine
    epilogue = layer.epilogue if isinstance(layer, AdaINLayer) else layer
    return epilogue.norm.affine


def _counted(G: Generator, num: int, seed: int, progress: Callable[[int, int], None] | None) -> Iterator[Tensor]:
    """Samples of w, as they come."""
    done = 0
    for w in sample_w(G, num, seed):
        yield w
        done += len(w)
        if progress is not None:
            progress(done, num)
