"""One picture's way from a source's bytes to a dataset's bytes, and many pictures' way in parallel."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from styleforge.data.decode import Decoded, decode, read_header
from styleforge.data.sources import Source
from styleforge.data.transform import Recipe
from styleforge.networks.sizes import format_size, nearest_legal_sizes, size_plan

Policy = Literal["skip", "convert", "fail"]
ImageFormat = Literal["png", "jpeg", "webp"]
S = TypeVar("S")
T = TypeVar("T")

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
CHANNELS = {"png": (1, 3, 4, "keep"), "jpeg": (1, 3), "webp": (3, 4)}
"""What each format stores so that reading gives the same number of channels."""
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
CUT_SHORT = "cut short, filled up with gray"
MODE_CHANGE = "mode "
"""Start of the note about a picture that was stored in another mode than the dataset's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture: its new content, or a problem."""

    name: str
    """The picture's name in the source."""
    data: bytes | None = None
    """Encoded for the dataset; None if there was a problem."""
    notes: tuple[str, ...] = ()
    """What was done to it besides cropping and resizing."""
    fingerprint: str = ""
    """Digest of its source."""
    problem: str = ""
    """Why there is no content."""
    fatal: bool = False
    """Whether a policy says that this problem ends the work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """All that is needed to make one picture."""

    source: Source
    """Where pictures are read."""
    recipe: Recipe
    """How they are made to fit."""
    image_format: ImageFormat
    """How they are encoded."""
    on_error: Policy
    """What happens to broken files."""
    on_odd: Policy
    """What happens to pictures stored in another mode than the dataset's."""

    def __post_init__(self) -> None:
        for flag, value in (("--on-error", self.on_error), ("--on-odd", self.on_odd)):
            if value not in ("skip", "convert", "fail"):
                raise ValueError(f"{flag}: got {value}, expected skip, convert or fail")
        if self.image_format not in SUFFIXES:
            raise ValueError(f"--format: got {self.image_format}, expected one of {', '.join(SUFFIXES)}")
        stored = CHANNELS[self.image_format]
        if self.recipe.channels not in stored:
            raise ValueError(
                f"--channels: got {self.recipe.channels}, expected {' or '.join(map(str, stored))} "
                f"for {self.image_format}; add --format=png for others"
            )

    def make(self, name: str) -> Outcome:
        """Reads, decodes, fits and encodes one picture; a problem is part of the outcome."""
        try:
            fingerprint = self.source.fingerprint(name)
            decoded = self._decode(self.source.read(name))
            image = self.recipe.apply(decoded.image)
        except (ValueError, OSError, MemoryError) as error:
            fatal = self.on_error == "fail"
            remedy = "; leave such files out with --on-error=skip" if fatal else ""
            return Outcome(name, problem=f"{str(error) or repr(error)}{remedy}", fatal=fatal)
        notes = decoded.notes
        if decoded.stored_mode != image.mode:
            notes += (f"{MODE_CHANGE}{decoded.stored_mode} to {image.mode}",)
        if self.recipe.enlarges(decoded.image):
            notes += ("enlarged",)
        if not self.admits(notes):
            problem = f"stored as {decoded.stored_mode}, not {image.mode}; allow it with --on-odd=convert"
            return Outcome(name, problem=problem, fatal=self.on_odd == "fail")
        stream = io.BytesIO()
        if self.image_format == "png":
            image.save(stream, "png", compress_level=0)  # uncompressed: the fastest to read
        elif self.image_format == "jpeg":
            image.save(stream, "jpeg", quality=95, subsampling=0)
        else:
            image.save(stream, "webp", lossless=True)
        return Outcome(name, stream.getvalue(), notes, fingerprint)

    def admits(self, notes: Iterable[str]) -> bool:
        """Whether the policies let a picture with these notes into the dataset."""
        return all(
            (note != CUT_SHORT or self.on_error == "convert")
            and (not note.startswith(MODE_CHANGE) or self.on_odd == "convert")
            for note in notes
        )

    def output_size(self, names: Sequence[str]) -> tuple[int, int]:
        """The (height, width) that the dataset will have: as wished, or else that of the pictures.

        Reads the headers of all pictures only where size or channels depend on them.

        Raises:
            ValueError: The pictures differ in what was left to them, or the networks cannot make their size.
        """
        size = self.recipe.output_size
        if size is None or self.recipe.channels == "keep":
            sizes: dict[tuple[int, int], str] = {}  # what occurs -> the first picture where it does
            channels: dict[int, str] = {}
            for name in names:
                try:
                    with self.source.open(name) as stream:
                        picture_size, picture_channels = read_header(stream)
                except (ValueError, OSError):
                    continue  # the policy for broken files will judge it
                sizes.setdefault(picture_size, name)
                channels.setdefault(picture_channels, name)
            if not sizes:
                raise ValueError(f"{self.source.path}: none of the {len(names)} pictures can be read")
            if size is None:
                size = self._only(sizes, format_size, "(height×width) pixels", _resolution_flag(next(iter(sizes))))
            if self.recipe.channels == "keep":
                self._only(channels, str, "channels", "--channels=3")
        try:
            size_plan(size)
        except ValueError as error:
            raise ValueError(f"{error}; choose with --resolution=WxH, such as {_resolution_flag(size)}") from error
        return size

    def _only(self, found: dict[T, str], show: Callable[[T], str], unit: str, flag: str) -> T:
        """The one key of a dict, or an error that names two pictures that differ."""
        (first, first_name), *others = found.items()
        if others:
            other, other_name = others[0]
            raise ValueError(
                f"{self.source.path}: {first_name} has {show(first)} and {other_name} {show(other)} {unit}, "
                f"expected all alike; make them so with {flag}"
            )
        return first

    def _decode(self, data: bytes) -> Decoded:
        try:
            return decode(data, manage_colour=True)
        except ValueError:
            if self.on_error != "convert" or not data.startswith(JPEG_START):
                raise
        rest = decode(data + JPEG_END, manage_colour=True)  # at an end mark, the decoder fills up what is missing
        return replace(rest, notes=(*rest.notes, CUT_SHORT))


def in_order(function: Callable[[S], T], items: Iterable[S], workers: int | None) -> Iterator[T]:
    """Applies a function in threads; yields results in order and never works far ahead of the reader.

    Threads suffice, since Pillow's decoders, filters and encoders release the interpreter lock.

    Args:
        function: Called with each item.
        items: What to work on.
        workers: Number of threads; None for one per core.
    """
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 64:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _resolution_flag(size: tuple[int, int]) -> str:
    """The option for the legal size that is nearest to a (height, width)."""
    height, width = nearest_legal_sizes(*size, count=1)[0]
    return f"--resolution={width}x{height}"
