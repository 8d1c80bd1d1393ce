"""Pictures from seeds: seed -> z -> ws -> images, the same for every batch size.

A seed's z is the official releases', so that old seeds give old pictures. Batches change a picture by rounding errors
of the networks alone: at most one of 255 steps per pixel on a CPU.
"""
# Shapes: N batch, Z length of z, C image channels or length of a label, L number of ws, W length of w, H W image size.

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from styleforge import images
from styleforge.latents.gaussian import mapping_sha256
from styleforge.memory import out_of_memory
from styleforge.networks import Generator
from styleforge.precision import exact_float32

MAX_SEED = 2**32 - 1
"""The largest seed that numpy's generator takes."""


def parse_numbers(text: str, *, name: str, largest: int) -> list[int]:
    """Reads numbers and ranges such as ``0-35,40``, in the order given.

    Args:
        text: What to read.
        name: What the numbers are, which is also their flag's name.
        largest: The largest number allowed; the smallest is 0.

    Raises:
        ValueError: Anything else, a range that runs backwards, or a number that is too large.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= largest:
            raise ValueError(
                f"{name}: got {part.strip()!r} in {text!r}, expected numbers from 0 to {largest} and rising ranges, "
                f"such as 0-3,{min(7, largest)} (--{name})"
            )
        numbers.extend(range(first, last + 1))
    return numbers


def format_numbers(numbers: Iterable[int]) -> str:
    """Writes numbers as `parse_numbers` reads them: ``0-35,40``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def parse_seeds(text: str) -> list[int]:
    """Reads seeds such as ``0-35,40``; see `parse_numbers`."""
    return parse_numbers(text, name="seeds", largest=MAX_SEED)


def parse_label(text: str | None, c_dim: int) -> Tensor | None:
    """Reads what a person gives as a label.

    Args:
        text: ``3``: a class; ``all``: every class; ``0.5,0,0.5``: the label itself, with ``c_dim`` numbers.
        c_dim: Length of the network's labels; 0 for an unconditional one.

    Returns:
        [C] for one label, [C, C] for all classes, None for an unconditional network.

    Raises:
        ValueError: The network takes no label, needs one, or needs another one.
    """
    if c_dim == 0:
        if text is not None:
            raise ValueError(f"class: got {text!r}, expected none, since this network is unconditional; drop --class")
        return None
    classes = torch.eye(c_dim)
    if text == "all":
        return classes
    if text is not None and re.fullmatch(r"\d+", text) and int(text) < c_dim:
        return classes[int(text)]
    if text is not None and not re.fullmatch(r"\d+", text):
        try:
            values = torch.tensor([float(value) for value in text.split(",")])
        except ValueError:
            values = torch.empty(0)
        if len(values) == c_dim and values.isfinite().all():
            return values
    raise ValueError(
        f"class: got {'none' if text is None else repr(text)}, expected a class from 0 to {c_dim - 1} or {c_dim} "
        "numbers with commas between them, since this network is conditional (--class)"
    )


def load_ws(path: str | Path, G: Generator) -> Tensor:
    """Reads ws from an npz archive, as projection (key ``w``) and `styleforge generate` (key ``ws``) write it.

    Args:
        path: The archive.
        G: The generator that the ws are for.

    Returns:
        ws [N, L, W] on the CPU; an array [L, W] counts as one.

    Raises:
        ValueError: No archive, none of the keys, or ws of another network: of other sizes, or whose mapping network had
            other weights, where the archive says so.
        OSError: There is no such file, or it cannot be read.
    """
    arrays, keys = _read_archive(path, r"w|ws|settings|mapping_sha256")
    array = arrays.get("w", arrays.get("ws"))
    if array is None:
        raise ValueError(f"{path}: got an archive with the keys {', '.join(keys) or '(none)'}, expected w or ws")
    if array.ndim == 2:
        array = array[None]  # [1, L, W]
    expected = (G.num_ws, G.w_dim)
    if array.ndim != 3 or array.shape[1:] != expected or not len(array) or array.dtype.kind != "f":
        raise ValueError(
            f"{path}: got {array.dtype} of shape {list(array.shape)}, expected floats of shape [any, {G.num_ws}, "
            f"{G.w_dim}]; use the network that the file was made with"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: got ws that are not finite, expected numbers; make the file again")
    if _recorded_sha256(arrays) not in (None, mapping_sha256(G)):
        raise ValueError(
            f"{path}: got ws that another mapping network made, expected those of the network at hand; use the network "
            "that the file was made with"
        )
    return torch.from_numpy(array.astype(np.float32))


def _recorded_sha256(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The `mapping_sha256` of the network that an archive was made with: its own field, or one of its settings."""
    if "mapping_sha256" in arrays:
        return str(arrays["mapping_sha256"])
    with contextlib.suppress(KeyError, TypeError, ValueError):  # an older file, or one that others made
        return str(json.loads(str(arrays["settings"]))["mapping_sha256"])
    return None


def load_projections(paths: str, G: Generator) -> tuple[Tensor, list[Tensor] | None]:
    """Reads projections from one or several archives, with the noise maps that were found for them.

    Args:
        paths: Archives as `load_ws` takes them, with commas between them. ``noise0``, ``noise1``, … [N or 1, 1, h, w]
            in them are the maps for each of ``G.synthesis.noise_inputs()``.
        G: The generator that they are for.

    Returns:
        ws [N, L, W] of all archives in order; and noise maps [N, 1, h, w] for each noise input, the network's own
        where an archive has none, or None if no archive has any. On the CPU.

    Raises:
        ValueError: As in `load_ws`, or noise maps of another network.
        OSError: As there.
    """
    names = [path.strip() for path in paths.split(",")]
    all_ws = [load_ws(name, G) for name in names]
    all_noise = [_load_noise(name, G, len(ws)) for name, ws in zip(names, all_ws, strict=True)]
    if not any(all_noise):
        return torch.cat(all_ws), None
    own = [noise_input.const.cpu()[None, None] for noise_input in G.synthesis.noise_inputs()]  # [1, 1, h, w]
    per_file = [
        [maps.expand(len(ws), -1, -1, -1) for maps in noise or own] for ws, noise in zip(all_ws, all_noise, strict=True)
    ]
    return torch.cat(all_ws), [torch.cat(maps) for maps in zip(*per_file, strict=True)]


def _load_noise(path: str, G: Generator, num: int) -> list[Tensor]:
    """The noise maps [num or 1, 1, h, w] of an archive; none if it has none."""
    sizes = [tuple(noise_input.const.shape) for noise_input in G.synthesis.noise_inputs()]
    found, _ = _read_archive(path, r"noise\d+")
    arrays = [found[name] for name in sorted(found, key=lambda name: int(name.removeprefix("noise")))]
    fits = len(arrays) in (0, len(sizes)) and all(
        array.shape in ((num, 1, *size), (1, 1, *size)) and array.dtype.kind == "f" and np.isfinite(array).all()
        for array, size in zip(arrays, sizes, strict=False)
    )
    if not fits:
        shapes = ", ".join(str(list(array.shape)) for array in arrays)
        raise ValueError(
            f"{path}: got noise maps of shapes {shapes}, expected the {len(sizes)} finite ones of this network; use "
            "the network that the file was made with"
        )
    return [torch.from_numpy(array.astype(np.float32)) for array in arrays]


def _read_archive(path: str | Path, pattern: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those arrays of an npz archive whose keys match a pattern, and the keys of all."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such file, expected an npz archive with the key w or ws")
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = list(archive)
            return {key: archive[key] for key in keys if re.fullmatch(pattern, key)}, keys
    except Exception as error:  # damage can raise anything in zipfile and numpy
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: got a file that is damaged or no npz archive ({reason}), expected one with w or ws"
        ) from error


def seed_to_z(seed: int, z_dim: int) -> Tensor:
    """The z [1, Z] of a seed, float32: the official releases' ``RandomState(seed).randn(1, z_dim)``."""
    return torch.from_numpy(np.random.RandomState(seed).randn(1, z_dim)).float()


def seeds_to_noise(G: Generator, seeds: Sequence[int | Sequence[int]], lod: float = 0.0) -> list[Tensor]:
    """Noise maps [N, 1, h, w] for each of ``G.synthesis.noise_inputs(lod)``; each sample's follow from its seed alone.

    They are drawn on the CPU, by another generator than z, so that devices agree and noise and z are independent.
    """
    sizes = [noise_input.const.shape for noise_input in G.synthesis.noise_inputs(lod)]
    draws = [np.random.default_rng(seed) for seed in seeds]
    maps = [np.stack([draw.standard_normal((1, *size), dtype=np.float32) for draw in draws]) for size in sizes]
    return [torch.from_numpy(noise).to(G.w_avg.device) for noise in maps]


def default_batch(G: Generator) -> int:
    """A number of pictures at a time, 1 to 32, whose largest features take half a GB: 4 for config F at 1024²."""
    height, width = G.config.size
    return min(max(2**27 // (height * width * G.config.channels[-1]), 1), 32)


@torch.no_grad()
@exact_float32()
def generate_ws(
    G: Generator,
    seeds: Sequence[int],
    *,
    c: Tensor | None = None,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
    batch: int = 256,
) -> Tensor:
    """The ws of seeds.

    Args:
        G: The generator; work is done on its device.
        seeds: One for each sample.
        c: One label [C] for all, or one for each sample [N, C]; None for an unconditional network.
        truncation_psi: 1 leaves w, 0 gives the mean w.
        truncation_cutoff: Number of layers that are truncated; None for all.
        batch: Samples at a time.

    Returns:
        ws [N, L, W] on the generator's device.

    Raises:
        ValueError: Labels that the network cannot take.
    """
    device = G.w_avg.device
    if c is not None and c.ndim == 1:
        c = c.expand(len(seeds), -1)  # [N, C]
    parts = [torch.empty(0, G.num_ws, G.w_dim, device=device)]
    for i in range(0, len(seeds), batch):
        z = torch.cat([seed_to_z(seed, G.z_dim) for seed in seeds[i : i + batch]]).to(device)  # [n, Z]
        labels = None if c is None else c[i : i + batch].to(device)
        parts.append(G.mapping(z, labels, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff))
    return torch.cat(parts)


@torch.no_grad()
def synthesize(
    G: Generator,
    ws: Tensor,
    *,
    noise_mode: str = "const",
    noise_seeds: Sequence[int] | None = None,
    noise: Sequence[Tensor] | None = None,
    lod: float = 0.0,
    batch: int | None = None,
) -> Iterator[Tensor]:
    """Makes pictures from ws.

    Args:
        G: The generator; work is done on its device.
        ws: [N, L, W].
        noise_mode: ``const``, ``none``, or ``random``, which draws each sample's noise from its seed.
        noise_seeds: The samples' seeds for ``random``; by default they are counted from 0.
        noise: Maps [N or 1, 1, h, w] for each of ``G.synthesis.noise_inputs()``, in place of the fixed ones of
            ``const``; other modes leave them aside.
        lod: Level of detail of a progressive network; 0 is full resolution.
        batch: Pictures at a time; None for `default_batch`.

    Yields:
        images_uint8 [n, C, H, W] on the CPU, n pictures at a time, in order.

    Raises:
        ValueError: An argument that this network cannot take.
        MemoryError: Memory ran out.
    """
    batch = batch or default_batch(G)
    seeds = range(len(ws)) if noise_seeds is None else noise_seeds
    num_maps, device = len(G.synthesis.noise_inputs(lod)), G.w_avg.device
    for i in range(0, len(ws), batch):
        part = slice(i, i + batch)
        maps = None
        if noise_mode == "random":
            maps = seeds_to_noise(G, seeds[part], lod)
        elif noise_mode == "const" and noise is not None:
            maps = [one[part if len(one) > 1 else slice(None)].to(device) for one in noise[:num_maps]]
        try:
            with exact_float32():
                img = G.synthesis(ws[part].to(device), noise_mode=noise_mode, lod=lod, noise=maps)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise MemoryError(f"memory ran out with {batch} pictures at a time; take fewer (--batch)") from error
        yield images.to_uint8(img).cpu()  # [n, C, H, W]


def generate_images(
    G: Generator,
    seeds: Sequence[int],
    *,
    c: Tensor | None = None,
    truncation_psi: float = 1.0,
    truncation_cutoff: int | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    noise_mode: str = "const",
    lod: float = 0.0,
    batch: int | None = None,
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Makes pictures from seeds: `generate_ws` and `synthesize`, batch by batch.

    Args:
        G: The generator; work is done on its device.
        seeds: One for each sample.
        c: As `generate_ws` takes it.
        truncation_psi: As there.
        truncation_cutoff: As there.
        transform: What happens to the truncated ws [n, L, W], such as `GaussianLatents.compress` with its tau; None
            leaves them.
        noise_mode: As `synthesize` takes it; ``random`` follows from the seeds.
        lod: As there.
        batch: As there.

    Yields:
        (seeds [n], ws [n, L, W] on the generator's device, images_uint8 [n, C, H, W] on the CPU).

    Raises:
        ValueError: An argument that this network cannot take.
        MemoryError: Memory ran out.
    """
    batch = batch or default_batch(G)
    for i in range(0, len(seeds), batch):
        part = list(seeds[i : i + batch])
        ws = generate_ws(
            G,
            part,
            c=c if c is None or c.ndim == 1 else c[i : i + batch],
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
        )  # [n, L, W]
        if transform is not None:
            ws = transform(ws)
        (images_uint8,) = synthesize(G, ws, noise_mode=noise_mode, noise_seeds=part, lod=lod, batch=batch)
        yield part, ws, images_uint8


def mix_matrix(row_ws: Tensor, col_ws: Tensor, layers: Sequence[int]) -> Tensor:
    """Every row's ws with the styles of every column at some layers (Karras et al. 2019, Figure 3).

    Args:
        row_ws: [R, L, W].
        col_ws: [K, L, W].
        layers: Numbers of the layers, from 0, that take the column's w.

    Returns:
        ws [R, K, L, W].
    """
    takes_col = torch.zeros(row_ws.shape[1], 1, dtype=torch.bool, device=row_ws.device)  # [L, 1]
    takes_col[list(layers)] = True
    return torch.where(takes_col, col_ws[None], row_ws[:, None])
