"""Any number of generated pictures: a dataset in one zip, or WebDataset shards, shared among processes.

Both go on after an interruption. A shard is a plain tar that appears under its name when it is whole, so that a killed
process loses the shard in work and no other. A zip takes up what Ctrl-C or an error has left.
"""
# Shapes: K labels, n batch, C image channels or length of a label, H W image size, L number of ws, W length of w.

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from styleforge import dist, images
from styleforge.data.prepare import in_order
from styleforge.data.sources import METADATA
from styleforge.data.writers import ZipWriter
from styleforge.files import PART, atomic_path, write_json
from styleforge.latents import default_batch, generate_images
from styleforge.latents.gaussian import sha256_of
from styleforge.latents.sampling import format_numbers
from styleforge.networks import Generator

INDEX = "index.json"
"""In a folder of shards: the settings that they were made with."""
FORMAT = "styleforge shards 1"

Progress = Callable[[int, int], None]
"""Called with (done, total) pictures."""


@dataclass(kw_only=True, eq=False)
class SeedPictures:
    """The pictures of seeds, numbered from 0: those of the first seed with each label, then those of the next.

    They are always made in the same batches, so that a picture does not depend on which others are asked for.
    """

    G: Generator
    """Work is done on its device."""
    seeds: Sequence[int]
    """In the order of the pictures."""
    labels: Tensor | None = None
    """[K, C], each of which every seed is made with; None for an unconditional network."""
    truncation_psi: float = 1.0
    """Truncation; 1 is off."""
    truncation_cutoff: int | None = None
    """Number of layers that are truncated; None for all."""
    transform: Callable[[Tensor], Tensor] | None = None
    """What happens to the truncated ws [n, L, W]."""
    transform_settings: Mapping[str, Any] = field(default_factory=dict)
    """What tells the transform from others, as JSON holds it."""
    noise_mode: str = "const"
    """As `styleforge.latents.synthesize` takes it."""
    lod: float = 0.0
    """As there."""
    batch: int = 0
    """Pictures at a time; 0 for `styleforge.latents.default_batch`."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("seeds: got none, expected at least one (--seeds)")
        if self.batch < 0:
            raise ValueError(f"batch: got {self.batch}, expected 1 or more, or 0 for what suits the network (--batch)")
        self.batch = self.batch or default_batch(self.G)
        config = json.dumps(self.G.config.to_dict(), sort_keys=True)
        self.network = sha256_of(config, self.G.state_dict())
        """SHA-256 of the generator's config and weights."""

    @property
    def labels_per_seed(self) -> int:
        """How many pictures each seed makes."""
        return 1 if self.labels is None else len(self.labels)

    def __len__(self) -> int:
        return len(self.seeds) * self.labels_per_seed

    def seed(self, number: int) -> int:
        """The seed of a picture."""
        return self.seeds[number // self.labels_per_seed]

    def label(self, number: int) -> int | list[float] | None:
        """The label of a picture as datasets hold it: a class, a vector, or None."""
        if self.labels is None:
            return None
        values = self.labels[number % self.labels_per_seed].tolist()
        return values.index(1) if sorted(values) == [0.0] * (len(values) - 1) + [1.0] else values

    def settings(self) -> dict[str, Any]:
        """All that the pictures depend on, as JSON holds it."""
        labels = None if self.labels is None else [self.label(k) for k in range(self.labels_per_seed)]
        return {
            "network": self.network,
            "seeds": format_numbers(self.seeds),
            "labels": labels,
            "psi": self.truncation_psi,
            "psi_cutoff": self.truncation_cutoff,
            **self.transform_settings,
            "noise_mode": self.noise_mode,
            "lod": self.lod,
            "batch": self.batch,
        }

    def make(self, numbers: range) -> Iterator[tuple[int, Tensor]]:
        """Makes consecutive pictures.

        Yields:
            (number, image_uint8 [C, H, W] on the CPU).

        Raises:
            ValueError: An argument that this network cannot take.
            MemoryError: Memory ran out.
        """
        # Another batch would change roundings. So batches begin at multiples of their size in all pictures, also where
        # that makes a few at the ends that nobody asked for.
        for first in range(numbers.start // self.batch * self.batch, numbers.stop, self.batch):
            made = range(first, min(first + self.batch, len(self)))
            ((_, _, images_uint8),) = generate_images(
                self.G,
                [self.seed(i) for i in made],
                c=None if self.labels is None else self.labels[[i % self.labels_per_seed for i in made]],
                truncation_psi=self.truncation_psi,
                truncation_cutoff=self.truncation_cutoff,
                transform=self.transform,
                noise_mode=self.noise_mode,
                lod=self.lod,
                batch=self.batch,
            )
            for number, image in zip(made, images_uint8, strict=True):
                if number in numbers:
                    yield number, image


@dataclass(kw_only=True, slots=True)
class Written:
    """What `write_zip` or `write_shards` has done."""

    files: int
    """Files that hold the pictures: one zip, or shards."""
    new: int
    """Those that were not there before."""


def write_zip(
    pictures: SeedPictures, dest: str | Path, *, suffix: str = ".png", progress: Progress | None = None
) -> Written:
    """Writes a dataset in the field's format: a zip with ``dataset.json``, which training reads.

    PNGs are not compressed, as in any dataset. ``dataset.json`` holds the settings, too, as ``made_by``, so that a
    second call finds the zip complete. Until then it is named ``DEST.partial``; the same call goes on with it unless
    its process was killed outright.

    Args:
        pictures: What to write.
        dest: A name that ends in ``.zip``.
        suffix: Ending of the pictures' names, which chooses their format.
        progress: Called with (done, total) pictures.

    Raises:
        ValueError: There are several processes, the zip is there and holds something else, or as
            `SeedPictures.make`.
        OSError: It cannot be written.
        MemoryError: As `SeedPictures.make`.
    """
    dest, settings = Path(dest), _as_json(pictures.settings() | {"suffix": suffix})
    if dist.world_size() > 1:
        raise ValueError(
            f"{dest}: got {dist.world_size()} processes for one zip, expected one; take a folder for several, which "
            "gets shards"
        )
    if dest.is_dir():
        raise ValueError(f"{dest}: got a folder, expected the name of a zip; choose another")
    if dest.exists():
        _check_same(dest, _made_by(dest), settings)
        return Written(files=1, new=0)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        writer = ZipWriter(dest, digest, still_valid=lambda entry: True)  # the digest vouches for all
    except OSError as error:
        raise OSError(f"{dest}: cannot be written there ({error.strerror}); choose another place") from error
    try:
        encoded = in_order(
            partial(_encoded, suffix=suffix, compress=False),
            pictures.make(range(len(writer.entries), len(pictures))),
            None,
        )
        for number, data in encoded:
            writer.add(data, suffix, source=str(number), notes=(), fingerprint="")
            if progress is not None:
                progress(number + 1, len(pictures))
        writer.finish(_metadata(pictures, [entry.file for entry in writer.entries], settings))
    except OSError as error:
        writer.discard()
        raise OSError(f"{dest}: writing failed after {len(writer.entries)} pictures ({error})") from error
    except BaseException:
        writer.stop()
        raise
    return Written(files=1, new=1)


def write_shards(
    pictures: SeedPictures,
    dest: str | Path,
    *,
    shard_size: int = 1000,
    suffix: str = ".png",
    progress: Progress | None = None,
) -> Written:
    """Writes ``shard-000000.tar`` and so on with ``00000000.png``, ``00000000.json``, … as WebDataset reads them.

    Each picture's JSON holds its seed, label, psi and the network's checksum; ``index.json`` beside the shards holds
    the settings. Shards that are there are not made again. The processes of `styleforge.dist.Group` share the others;
    every one must call. The bytes do not depend on how many there are. One call at a time may work in a folder.

    Args:
        pictures: What to write.
        dest: A folder; made if it is missing.
        shard_size: Pictures of a shard; the last one may have less.
        suffix: Ending of the pictures' names, which chooses their format.
        progress: Called on rank 0 with (done, total) of its own pictures.

    Raises:
        ValueError: The folder holds shards with other settings, the shard size is no positive number, or as
            `SeedPictures.make`.
        OSError: A shard cannot be written.
        MemoryError: As `SeedPictures.make`.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size: got {shard_size}, expected 1 or more (--shard-size)")
    dest, num = Path(dest), -(-len(pictures) // shard_size)
    paths = [dest / f"shard-{i:06d}.tar" for i in range(num)]
    with dist.together():
        missing = []
        if dist.rank() == 0:
            _claim(dest, pictures.settings() | {"suffix": suffix, "shard_size": shard_size})
            missing = [i for i, path in enumerate(paths) if not path.exists()]
    missing = dist.broadcast_object(missing)
    with dist.together():
        own = missing[dist.rank() :: dist.world_size()]
        every_numbers = [range(i * shard_size, min((i + 1) * shard_size, len(pictures))) for i in own]
        done, total = 0, sum(map(len, every_numbers))
        for i, numbers in zip(own, every_numbers, strict=True):
            for _ in _write_tar(paths[i], pictures, numbers, suffix):
                done += 1
                if progress is not None and dist.rank() == 0:
                    progress(done, total)
    return Written(files=num, new=len(missing))


def _write_tar(path: Path, pictures: SeedPictures, numbers: range, suffix: str) -> Iterator[int]:
    """Writes one shard, whole or not at all; yields the numbers of its pictures as they are written."""
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, data in in_order(partial(_encoded, suffix=suffix), pictures.make(numbers), None):
            about = {
                "seed": pictures.seed(number),
                "label": pictures.label(number),
                "psi": pictures.truncation_psi,
                "network": pictures.network,
            }
            for ending, content in ((suffix, data), (".json", json.dumps(about).encode())):
                member = tarfile.TarInfo(f"{number:08d}{ending}")  # of no user and no time: the same bytes every time
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            yield number


def _encoded(numbered: tuple[int, Tensor], suffix: str, compress: bool = True) -> tuple[int, bytes]:
    number, image_uint8 = numbered
    return number, images.encode(image_uint8, suffix, compress=compress)


def _claim(dest: Path, settings: dict[str, Any]) -> None:
    """Makes sure that a folder's shards, if it has any, have these settings, and writes its index."""
    if dest.exists() and not dest.is_dir():
        raise ValueError(f"{dest}: got a file, expected a folder for shards, or a name that ends in .zip")
    try:
        dest.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{dest}: cannot be made ({error.strerror}); choose another place") from error
    index, shards = dest / INDEX, sorted(dest.glob("shard-*.tar"))
    settings = _as_json({"format": FORMAT, **settings})
    if shards:
        found = None
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(index.read_text(encoding="utf-8"))
        _check_same(dest, found, settings)
    elif index.exists() and FORMAT not in index.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{index}: is there and no index of shards, expected a folder without one; choose another")
    write_json(index, settings)
    for leftover in dest.glob(f".shard-*{PART}.tar"):  # what a killed process left half-written
        leftover.unlink(missing_ok=True)


def _check_same(dest: Path, found: Any, settings: dict[str, Any]) -> None:
    """Refuses to go on with pictures that were made otherwise."""
    if not isinstance(found, dict):
        raise ValueError(
            f"{dest}: is there and does not say how it was made, expected what this command has made, or a new name"
        )
    for name in settings | found:
        old, new = (json.dumps(values.get(name)) for values in (found, settings))
        if old != new:
            raise ValueError(
                f"{dest}: holds pictures made with {name} {_brief(old)}, got {_brief(new)}; repeat the command that "
                "they were made with, or choose another name"
            )


def _brief(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}…"


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """As it will be read again."""
    result: dict[str, Any] = json.loads(json.dumps(settings))
    return result


def _made_by(dest: Path) -> Any:
    """The settings in a zip's ``dataset.json``; None where there are none."""
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), zipfile.ZipFile(dest) as archive:
        metadata = json.loads(archive.read(METADATA))
        return metadata.get("made_by") if isinstance(metadata, dict) else None
    return None


def _metadata(pictures: SeedPictures, files: Sequence[str], settings: dict[str, Any]) -> bytes:
    """The content of ``dataset.json``."""
    content: dict[str, Any] = {"labels": None}
    if pictures.labels is not None:
        content["labels"] = [[file, pictures.label(number)] for number, file in enumerate(files)]
        if isinstance(pictures.label(0), int):
            content["classes"] = [str(k) for k in range(pictures.G.c_dim)]
    return json.dumps(content | {"made_by": settings}).encode()
