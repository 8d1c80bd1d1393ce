"""What the commands share: help with options under titles, types of options, and the progress bar."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torch import Tensor

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


_model = partial(click.option, cls=GroupedOption, group="Model")
_style = partial(click.option, cls=GroupedOption, group="Style")
_machine = partial(click.option, cls=GroupedOption, group="Machine")

_PICTURE_OPTIONS = (
    _model(
        "--network",
        required=True,
        metavar="PATH|NAME|URL",
        help="A checkpoint, a run directory (its last snapshot), a bundled model such as demo, or a URL.",
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
        "--class", "label", metavar="CLASS", help="Class of a conditional network, or its label as numbers 0.5,0,1."
    ),
    _style(
        "--noise-mode",
        type=click.Choice(["const", "random", "none"]),
        default="const",
        show_default=True,
        help="const: the network's own maps; random: drawn from the seed; none: left out.",
    ),
    _style("--lod", type=float, default=0.0, help="Level of detail of a progressive network; 1 halves it once."),
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
    label: str | None
    """The label as text; see `latents.parse_label`."""
    noise_mode: str
    """``const``, ``random`` or ``none``."""
    lod: float
    """Level of detail."""
    device: str
    """Where to compute."""
    batch: int | None
    """Pictures at a time."""

    def load(self) -> Generator:
        """Reads the generator and moves it to the device."""
        from styleforge import dist
        from styleforge.checkpoint import load_generator

        device = dist.pick_device(self.device)
        return load_generator(self.network).to(device)

    def parse_label(self, G: Generator) -> Tensor | None:
        """One label [C] for all pictures; None for an unconditional network."""
        from styleforge.latents import parse_label

        if self.label == "all":
            raise ValueError("class: got 'all', expected one class or label, since the pictures share it (--class)")
        return parse_label(self.label, G.c_dim)

    def ws_transform(self, G: Generator) -> Callable[[Tensor], Tensor]:
        """What happens to ws [..., W] after mapping and truncation: compression, or nothing."""
        from styleforge.latents import GaussianLatents

        if self.compress is None:
            return lambda ws: ws
        with progress_bar("Measuring the latent space") as progress:
            gaussian = GaussianLatents.fit_cached(G, progress=progress)
        return partial(gaussian.compress, tau=self.compress)


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
