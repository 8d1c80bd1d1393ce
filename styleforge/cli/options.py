"""What the commands share: help with options under titles, types of options, and the progress bar."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torch import Tensor

    from styleforge.latents import Directions
    from styleforge.networks import Generator


class GroupedOption(click.Option):
    """An option that is listed under a title in the command's help."""

    def __init__(self, *arguments: Any, group: str = "Options", **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help lists its options under the titles of their groups, in order of appearance."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one section for each group."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                sections.setdefault(option.group if isinstance(option, GroupedOption) else "Other", []).append(record)
        for title, records in sorted(sections.items(), key=lambda section: section[0] == "Other"):
            with formatter.section(title):
                formatter.write_dl(records)


class Resolution(click.ParamType):
    """``64`` or ``WxH`` such as ``512x384`` (width × height, as the field writes it), read as (height, width)."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parses the text."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", str(value).strip())
        if not match or not int(match[1]) or match[2] == "0":
            self.fail(f"got {value!r}, expected a side such as 64, or WIDTHxHEIGHT such as 512x384", param, ctx)
        width = int(match[1])
        return int(match[2] or width), width


class Colour(click.ParamType):
    """A colour such as ``white`` or ``#ff8800``, read as (red, green, blue)."""

    name = "colour"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        """Parses the text."""
        from PIL import ImageColor

        if isinstance(value, tuple):
            return value
        try:
            return ImageColor.getrgb(value)[:3]
        except ValueError:
            self.fail(f"got {value!r}, expected a colour such as white, gray or #ff8800", param, ctx)


class Seeds(click.ParamType):
    """Seeds such as ``0-35,40``, read as a list of numbers."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Parses the text."""
        from styleforge.latents import parse_seeds

        if isinstance(value, list):
            return value
        try:
            return parse_seeds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Strengths(click.ParamType):
    """``2``, or ``-3:3`` or ``-3:3:0.5``, read as a list of numbers."""

    name = "strength"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        """Parses the text."""
        if isinstance(value, list):
            return value
        try:
            numbers = [float(part) for part in str(value).split(":")]
            if len(numbers) == 1 and math.isfinite(numbers[0]):
                return numbers
            first, last, step = numbers if len(numbers) == 3 else (*numbers, 1.0)
            count = int((last - first) / step + 1e-9)
            if not 1 <= count <= 100 or step <= 0:
                raise ValueError
        except (ValueError, ZeroDivisionError, OverflowError):
            self.fail(
                f"got {value!r}, expected a number such as 2, or FIRST:LAST or FIRST:LAST:STEP such as -3:3, of 2 to "
                "101 numbers",
                param,
                ctx,
            )
        return [round(first + i * step, 10) for i in range(count + 1)]


_model = partial(click.option, cls=GroupedOption, group="Model")
_style = partial(click.option, cls=GroupedOption, group="Style")
_machine = partial(click.option, cls=GroupedOption, group="Machine")

_PICTURE_OPTIONS = (
    _model(
        "--network",
        required=True,
        metavar="PATH|NAME|URL",
        help="A checkpoint of any kind, a run directory (its last snapshot), a bundled model such as demo, or a URL.",
    ),
    _style(
        "--trunc",
        "--truncation-psi",
        "truncation_psi",
        type=float,
        default=1.0,
        show_default=True,
        metavar="PSI",
        help="Truncation: 1 is off; lower is more typical and less varied, 0 is the mean picture.",
    ),
    _style("--trunc-cutoff", type=click.IntRange(min=0), help="Truncate this many layers only, from the first."),
    _style(
        "--compress",
        type=click.FloatRange(min=0, min_open=True),
        metavar="TAU",
        help="Draw in only what is rare, such as artifacts (Wulff & Torralba, Eq. 6); lower draws in more, 0.5 to 2 "
        "are usual. Follows --trunc.",
    ),
    _style(
        "--direction",
        metavar="FILE[:INDEX]",
        help="Move w along a direction from `styleforge analyze directions`; INDEX counts from 0, the most important "
        "one, which is the default. Follows --compress.",
    ),
    _style(
        "--strength",
        type=Strengths(),
        metavar="S|FIRST:LAST[:STEP]",
        help="How far, in standard deviations of w; in generate and video also a range, such as -3:3.  [default: 2]",
    ),
    _style(
        "--class", "label", metavar="CLASS", help="Class of a conditional network, or its label as numbers 0.5,0,1."
    ),
    _style(
        "--noise-mode",
        type=click.Choice(["const", "random", "none"]),
        default="const",
        show_default=True,
        help="const: the network's own maps; random: drawn from the seed; none: left out.",
    ),
    _style(
        "--lod", type=float, help="Level of detail of a progressive network; 1 halves it once.  [default: as trained]"
    ),
    _machine("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or mps."),
    _machine("--batch", type=click.IntRange(min=1), help="Pictures at a time; by default 1 to 32, by their size."),
)


@dataclasses.dataclass(kw_only=True, slots=True)
class PictureOptions:
    """The options of every command that makes pictures from a model; see `picture_options` and their help."""

    network: str
    """The source of the generator."""
    truncation_psi: float
    """Truncation of w."""
    trunc_cutoff: int | None
    """Number of layers that are truncated."""
    compress: float | None
    """Threshold tau of the compression of w."""
    direction: str | None
    """File of a direction, and its number."""
    strength: list[float] | None
    """How far to go along it; more than one for a range."""
    label: str | None
    """The label as text; see `latents.parse_label`."""
    noise_mode: str
    """``const``, ``random`` or ``none``."""
    lod: float
    """Level of detail; without the flag it is known once the generator is loaded."""
    device: str
    """Where to compute."""
    batch: int | None
    """Pictures at a time."""

    def load(self) -> Generator:
        """Reads the generator and moves it to the device."""
        from styleforge import dist
        from styleforge.convert import load_any

        device = dist.pick_device(self.device)
        loaded = load_any(self.network)
        if self.lod is None:
            self.lod = loaded.lod
        return loaded.generator.to(device)

    def parse_label(self, G: Generator) -> Tensor | None:
        """One label [C] for all pictures; None for an unconditional network."""
        from styleforge.latents import parse_label

        if self.label == "all":
            raise ValueError("class: got 'all', expected one class or label, since the pictures share it (--class)")
        return parse_label(self.label, G.c_dim)

    @property
    def strengths(self) -> list[float]:
        """How far to go along the direction: one number, or those of a range.

        Raises:
            UsageError: There is no direction to go along.
        """
        if self.strength is not None and self.direction is None:
            raise click.UsageError("--strength: got no direction to go along, expected --direction FILE with it")
        return self.strength or [2.0]

    def ws_transform(self, G: Generator) -> Callable[[Tensor], Tensor]:
        """What happens to ws [..., L, W] after mapping and truncation: compression and a direction, or nothing.

        Raises:
            UsageError: A range of strengths.
        """
        if len(self.strengths) > 1:
            raise click.UsageError("--strength: got a range, expected one number here, such as 2")
        return partial(self.ws_transform_at(G), strength=self.strengths[0])

    def ws_transform_at(self, G: Generator) -> Callable[..., Tensor]:
        """As `ws_transform`, with ``strength``, a number or a tensor that broadcasts with ws, to be given each time."""
        from styleforge.latents import GaussianLatents

        directions, index = load_direction(self.direction, G)
        gaussian = None
        if self.compress is not None:
            with progress_bar("Measuring the latent space") as progress:
                gaussian = GaussianLatents.fit_cached(G, progress=progress)

        def transform(ws: Tensor, strength: float | Tensor) -> Tensor:
            if gaussian is not None and self.compress is not None:
                ws = gaussian.compress(ws, self.compress)
            return ws if directions is None else directions.apply(ws, index, strength)

        return transform

    def transform_settings(self) -> dict[str, Any]:
        """What `ws_transform` depends on besides the network, as JSON holds it."""
        settings: dict[str, Any] = {}
        if self.compress is not None:
            settings["compress"] = f"{self.compress:g}"
        if self.direction is not None:
            path, index = _split_direction(self.direction)
            digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            settings |= {"direction": digest, "direction_index": index, "strength": self.strengths[0]}
        return settings

    def ws(self, G: Generator, seeds: Sequence[int]) -> Tensor:
        """The ws [N, L, W] of seeds, after truncation and `ws_transform`, on the generator's device."""
        from styleforge.latents import generate_ws

        return self.ws_transform(G)(
            generate_ws(
                G,
                seeds,
                c=self.parse_label(G),
                truncation_psi=self.truncation_psi,
                truncation_cutoff=self.trunc_cutoff,
            )
        )


def load_direction(text: str | None, G: Generator) -> tuple[Directions | None, int]:
    """The file that ``--direction`` names, if it does, and the direction's number; says if it is another network's."""
    from styleforge.latents import Directions

    if text is None:
        return None, 0
    path, index = _split_direction(text)
    directions = Directions.load(path, G)
    if not directions.made_for(G):
        click.echo(f"Note: {path} was made for other weights of a network of the same sizes.", err=True)
    return directions, index


def _split_direction(text: str) -> tuple[str, int]:
    """Path and number in ``FILE`` or ``FILE:INDEX``."""
    match = re.fullmatch(r"(.+?)(?::(\d+))?", text)
    if match is None:
        raise click.UsageError("--direction: got nothing, expected FILE or FILE:INDEX")
    return match[1], int(match[2] or 0)


def picture_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that `PictureOptions` holds to a command, which takes them as its first argument."""

    @functools.wraps(command)
    def with_picture_options(**arguments: Any) -> None:
        shared = {field.name: arguments.pop(field.name) for field in dataclasses.fields(PictureOptions)}
        command(PictureOptions(**shared), **arguments)

    for option in reversed(_PICTURE_OPTIONS):
        with_picture_options = option(with_picture_options)
    return with_picture_options


_measure = partial(click.option, cls=GroupedOption, group="Measurement")
_EXTRACTOR_FIELDS = ("extractor", "weights_dir", "offline")


def extractor_options(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the options that choose feature networks to a command, which takes them as a dict ``tools``.

    Args:
        default: The extractor unless another is asked for.
    """
    options = (
        _measure(
            "--extractor", default=default, show_default=True, metavar="NAME",
            help="published; auto: those of them whose weights are at hand; or one by name: inception, vgg16, or "
            "random-vgg and discriminator, which need no download, and mark every number.",
        ),
        _measure(
            "--weights-dir", metavar="DIR",
            help="Folder with the published weights.  [default: $STYLEFORGE_WEIGHTS, or the cache]",
        ),
        _measure("--offline", is_flag=True, help="Never download weights."),
    )  # fmt: skip

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_extractor_options(**arguments: Any) -> None:
            tools = {name: arguments.pop(name) for name in _EXTRACTOR_FIELDS}
            command(tools=tools, **arguments)

        for option in reversed(options):
            with_extractor_options = option(with_extractor_options)
        return with_extractor_options

    return add


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on the error stream while the block runs; yields a function of (done, total) that moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
