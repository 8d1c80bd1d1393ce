"""`ImageDataset`: pictures and labels as tensors, the same from a zip, a folder or an LMDB."""
# Shapes: N pictures, C image channels, H W image size.

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from styleforge.data.decode import channels_of, decode
from styleforge.data.labels import Labels, read_labels
from styleforge.data.sources import dataset_name, open_source
from styleforge.networks.sizes import format_size, nearest_legal_sizes


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """Pictures of one size, in the sorted order of their names, with labels if wanted.

    Pictures are decoded by `styleforge.data.decode.decode`: upright, 8 bits, 1 to 4 channels. Colour profiles are
    not applied; packing does that once for all. A dataset may be pickled and forked.

    Args:
        path: A zip, a folder or an LMDB folder; see `styleforge.data.sources.open_source`.
        resolution: Side of a square, or (height, width), that the pictures must have; None takes any size.
        use_labels: Give out labels, from ``dataset.json`` or else from the names of sub-folders.
        mirror: Append each picture's mirror image: entry i + N mirrors entry i.
        max_images: Use a random subset of this many pictures, in the order of the whole.
        subset_seed: Chooses the subset.
        cache: Decode all pictures now and keep them in memory, N·C·H·W bytes.

    Attributes:
        path: Where the pictures lie.
        name: The file's name without ending, for naming runs.
        names: Names of the N pictures in use, sorted.
        resolution: (height, width) in pixels.
        img_channels: 1 gray, 2 gray with alpha, 3 RGB, 4 RGBA.
        c_dim: Length of a label: the number of classes, or of the vector's numbers; 0 without labels.
        label_kind: ``class``, ``vector``, or None without labels.
        class_names: Names of the classes, where they are known.
        mirror: Whether the second half of the entries mirrors the first.

    Raises:
        ValueError: There is no picture, sizes are mixed or not as wanted, a picture is broken, or labels are wanted
            but absent, incomplete or mixed. Only the first picture is looked at here, unless `cache` is set; each
            other one is checked when it is read.
        OSError: The path cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        resolution: int | tuple[int, int] | None = None,
        use_labels: bool = False,
        mirror: bool = False,
        max_images: int | None = None,
        subset_seed: int = 0,
        cache: bool = False,
    ) -> None:
        self._source = open_source(path)
        self.path = self._source.path
        self.name = dataset_name(self.path)
        self.names = subset(self._source.names, max_images, subset_seed)
        self.mirror = mirror
        self._shape: tuple[int, ...] | None = None
        self._shape = self._pixels(0).shape
        self.resolution: tuple[int, int] = (self._shape[0], self._shape[1])
        self.img_channels: int = self._shape[2]
        wanted = (resolution, resolution) if isinstance(resolution, int) else resolution
        if wanted is not None and self.resolution != tuple(wanted):
            raise ValueError(
                f"{self.path}: got pictures of {format_size(self.resolution)} (height×width), expected "
                f"{format_size(wanted)}; resize them with `styleforge data pack {self.path} DEST "
                f"--resolution={wanted[1]}x{wanted[0]}`"
            )
        labels = self._wanted_labels() if use_labels else None
        self.label_kind = None if labels is None else labels.kind
        self.c_dim = 0 if labels is None else labels.size
        self.class_names = None if labels is None else labels.class_names
        self._labels = None if labels is None else labels.array(self.names)
        self._cache: Tensor | None = None
        if cache:
            self._cache = self._decode_all()

    def __len__(self) -> int:
        return len(self.names) * (2 if self.mirror else 1)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Entry i: the picture [C, H, W] uint8 and its label [c_dim] float32."""
        if not 0 <= i < len(self):
            raise IndexError(f"got entry {i} of a dataset with {len(self)}")
        picture = i % len(self.names)
        image = self._image(picture) if self._cache is None else self._cache[picture].clone()
        return image if i == picture else image.flip(2), self.label(i)

    def label(self, i: int) -> Tensor:
        """Label of entry i, [c_dim] float32: one-hot for classes, empty without labels."""
        if self._labels is None:
            return torch.zeros(0)
        label = self._labels[i % len(self.names)]
        if self.label_kind == "vector":
            return torch.from_numpy(label.copy())
        one_hot = torch.zeros(self.c_dim)
        one_hot[int(label)] = 1
        return one_hot

    @property
    def has_labels(self) -> bool:
        """Whether labels could be used, for a hint to somebody who left `use_labels` off."""
        return self._labels is not None or read_labels(self._source) is not None

    def content_hash(self, *, mirror: bool | None = None) -> str:
        """A digest of the entries, for caches of statistics: names, sizes and checksums, labels, mirroring.

        For a zip it holds on every machine. For a folder or an LMDB, files count as changed with their time of
        change, so that nothing has to be read.

        Args:
            mirror: Whether mirror images are entries; None for what holds.
        """
        mirror = self.mirror if mirror is None else mirror
        digest = hashlib.sha256(f"{len(self.names)} {mirror} {self.c_dim}".encode())
        for name in self.names:
            digest.update(f"{name}\0{self._source.fingerprint(name)}\n".encode("utf-8", "surrogateescape"))
        if self._labels is not None:
            digest.update(self._labels.tobytes())
        return digest.hexdigest()

    def _pixels(self, i: int) -> np.ndarray:
        """Picture i as [H, W, C] uint8, checked to be like the first."""
        name = self.names[i]
        try:
            image = decode(self._source.read(name)).image
        except ValueError as error:
            raise ValueError(
                f"{name} in {self.path}: {error}; `styleforge data check {self.path}` lists all such files and "
                f"`styleforge data pack` leaves them out"
            ) from error
        pixels = np.asarray(image).reshape(image.height, image.width, channels_of(image))
        if self._shape is not None and pixels.shape != self._shape:
            height, width = nearest_legal_sizes(self._shape[0], self._shape[1], 1)[0]
            raise ValueError(
                f"{name} in {self.path}: got {_describe(pixels.shape)}, expected {_describe(self._shape)} like "
                f"{self.names[0]}; make all alike with `styleforge data pack {self.path} DEST "
                f"--resolution={width}x{height}`"
            )
        return pixels

    def _image(self, i: int) -> Tensor:
        return torch.from_numpy(self._pixels(i).transpose(2, 0, 1).copy())  # [C, H, W]

    def _decode_all(self) -> Tensor:
        images = torch.empty(len(self.names), self.img_channels, *self.resolution, dtype=torch.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads, since decoders release the interpreter lock
            for i, image in enumerate(pool.map(self._image, range(len(self.names)))):
                images[i] = image
        return images  # [N, C, H, W]

    def _wanted_labels(self) -> Labels:
        labels = read_labels(self._source)
        if labels is None:
            raise ValueError(
                f"{self.path}: --cond wants labels, but there are none; expected dataset.json with labels or one "
                f"sub-folder per class (or train without --cond)"
            )
        missing = labels.missing(self.names)
        if missing:
            raise ValueError(
                f"{self.path}: --cond wants a label for every picture, but {len(missing)} of {len(self.names)} have "
                f"none, such as {missing[0]}; complete dataset.json (or train without --cond)"
            )
        return labels


def subset(names: Sequence[str], max_images: int | None, seed: int = 0) -> list[str]:
    """A random subset in the original order; the one that the official releases take for the same seed.

    Args:
        names: All names.
        max_images: How many to keep; None, or as many as there are, keeps all.
        seed: Chooses the subset.

    Raises:
        ValueError: `max_images` is below 1.
    """
    if max_images is None or max_images >= len(names):
        return list(names)
    if max_images < 1:
        raise ValueError(f"--max-images: got {max_images}, expected at least 1")
    order = np.arange(len(names))
    np.random.RandomState(seed).shuffle(order)
    return [names[i] for i in np.sort(order[:max_images])]


def _describe(shape: tuple[int, ...]) -> str:
    return f"{format_size((shape[0], shape[1]))} (height×width) with {shape[2]} channel{'s' if shape[2] > 1 else ''}"
