"""What is measured: generated and real pictures, each one known by its number alone."""
# Shapes: N batch, Z length of z, L number of ws, W length of w, C image channels or length of a label, H W image size.

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from styleforge.data import ImageDataset
from styleforge.features.base import state_checksum
from styleforge.images import to_uint8
from styleforge.latents import default_batch
from styleforge.latents.sampling import seeds_to_noise
from styleforge.metrics import draws
from styleforge.networks import Generator
from styleforge.precision import exact_float32

TransformWs = Callable[[Tensor], Tensor]
"""Changes ws [N, L, W] before synthesis, such as a compression of artifacts."""


class Pictures(Protocol):
    """Numbered pictures."""

    batch: int
    """How many at a time."""

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """images_uint8 [N, C, H, W] of the pictures with these numbers, at most ``batch`` of them."""


class GeneratedPictures:
    """Pictures of a generator. Latents, labels and noise of picture i follow from (seed, i).

    Labels are those of random pictures of the dataset, as in the official release; without a dataset, classes that are
    equally frequent. Noise is random, as there.

    Args:
        G: The generator; work is done on its device.
        seed: Chooses latents, labels and noise.
        labels: Dataset with labels; None for equally frequent classes.
        truncation_psi: Truncation; 1 is off.
        transform: Changes ws after truncation.
        transform_name: What it is called in caches; needed where there is one.
        lod: Level of detail of a progressive generator.
        batch: Pictures at a time; None for a number by their size.
    """

    def __init__(
        self,
        G: Generator,
        *,
        seed: int,
        labels: ImageDataset | None = None,
        truncation_psi: float = 1.0,
        transform: TransformWs | None = None,
        transform_name: str = "",
        lod: float = 0.0,
        batch: int | None = None,
    ) -> None:
        self.G, self.seed, self.labels, self.lod = G, seed, labels, lod
        self.truncation_psi, self.transform, self.transform_name = truncation_psi, transform, transform_name
        self.batch = batch or default_batch(G)

    @property
    def key(self) -> str:
        """Tells these pictures from others, for caches; the batch does not count."""
        labels = "" if self.labels is None or not self.G.c_dim else self.labels.content_hash()
        parts = (state_checksum(self.G), self.G.config.to_dict(), self.seed, labels)
        parts += (self.truncation_psi, self.transform_name, self.lod)  # type: ignore[assignment]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def c(self, indices: Sequence[int]) -> Tensor | None:
        """Labels [N, C] of pictures, on the generator's device; None for an unconditional one."""
        if not self.G.c_dim:
            return None
        if self.labels is None:
            classes = draws.draw_choice(self.seed, indices, self.G.c_dim, stream=draws.LABELS)
            return torch.eye(self.G.c_dim, device=self.G.w_avg.device)[classes]
        entries = draws.draw_choice(self.seed, indices, len(self.labels.names), stream=draws.LABELS)
        return torch.stack([self.labels.label(int(i)) for i in entries]).to(self.G.w_avg.device)

    @torch.no_grad()
    @exact_float32()
    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Makes pictures.

        Args:
            indices: Their numbers, at most ``batch`` of them.

        Returns:
            images_uint8 [N, C, H, W] on the generator's device.

        Raises:
            ValueError: A picture is not finite.
        """
        G = self.G
        z = draws.draw_z(self.seed, indices, G.z_dim, stream=draws.IMAGES).to(G.w_avg.device)
        ws = G.mapping(z, self.c(indices), truncation_psi=self.truncation_psi)
        if self.transform is not None:
            ws = self.transform(ws)
        noise = seeds_to_noise(G, [[self.seed, draws.NOISE, i] for i in indices], self.lod)
        img = G.synthesis(ws, noise_mode="random", noise=noise, lod=self.lod)
        finite = img.isfinite().flatten(1).all(1).tolist()
        if not all(finite):
            raise ValueError(
                f"network: got pixels that are not finite in generated picture {indices[finite.index(False)]}, "
                "expected numbers; the weights are damaged or training diverged: take an earlier snapshot"
            )
        return to_uint8(img)


class RealPictures:
    """Pictures of a dataset, in one shuffled order, so that the first n are a fair sample, and always the same.

    Args:
        dataset: The pictures; labels do not matter.
        mirror: Whether the dataset's mirror images count, if it has them.
        batch: Pictures at a time.
    """

    def __init__(self, dataset: ImageDataset, *, mirror: bool = True, batch: int = 64) -> None:
        self.dataset, self.mirror, self.batch = dataset, mirror and dataset.mirror, batch
        self.order = np.random.RandomState(0).permutation(len(dataset) if mirror else len(dataset.names))
        self.pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 8))  # decoders release the interpreter lock

    @property
    def key(self) -> str:
        """Tells these pictures from others, for caches."""
        text = f"{self.dataset.content_hash(mirror=self.mirror)} first of a shuffled order"
        return hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.order)

    def __call__(self, indices: Sequence[int]) -> Tensor:
        """Reads pictures by their numbers in the shuffled order: images_uint8 [N, C, H, W] on the CPU.

        Raises:
            ValueError: A picture is broken.
            OSError: It cannot be read.
        """
        return torch.stack(list(self.pool.map(lambda i: self.dataset[int(self.order[i])][0], indices)))
