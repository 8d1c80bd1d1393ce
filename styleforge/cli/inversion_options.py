"""What the commands of inversion share: options for targets and distances."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from styleforge.cli.options import Colour, GroupedOption

if TYPE_CHECKING:
    from styleforge.checkpoint import Checkpoint

_target = partial(click.option, cls=GroupedOption, group="Pictures")
_distance = partial(click.option, cls=GroupedOption, group="Distance")

_TARGET_OPTIONS = (
    _target(
        "--align",
        type=click.Choice(["none", "center-crop", "pad", "stretch"]),
        default="none",
        show_default=True,
        help="For pictures of other proportions than the network's: none refuses them, center-crop cuts, pad adds a "
        "border, stretch distorts.",
    ),
    _target(
        "--background",
        type=Colour(),
        metavar="NAME|#RRGGBB",
        default="white",
        show_default=True,
        help="Shows behind transparent pixels and around padded pictures.",
    ),
)

whiten_option = click.option(
    "--whiten/--no-whiten",
    default=True,
    show_default=True,
    cls=GroupedOption,
    group="Search",
    help="With a prior: move along the axes of the latents' distribution, in units of its width, and need far fewer "
    "steps; or move in w, as the papers do.",
)


def require_full_size(loaded: Checkpoint) -> None:
    """Refuses a progressive network that is still growing: the layers of its full size are not trained yet.

    Raises:
        ValueError: It is.
    """
    if loaded.lod:
        raise ValueError(
            f"{loaded.source}: got a network that has grown to level of detail {loaded.lod:g}, expected one of full "
            "size, which real pictures compare with; take a later snapshot (--network)"
        )


def target_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that bring pictures to the network's size, which the command takes as a dict ``fit``."""
    return _bundled(command, "fit", ("align", "background"), _TARGET_OPTIONS)


def distance_options(*choices: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the options that choose a distance to a command, which takes them as a dict ``tools``.

    Args:
        choices: Names besides ``auto``.
    """
    stand_ins = {
        True: "pixel+discriminator if the checkpoint has a discriminator, else random-vgg",
        False: "random-vgg",
    }
    options = (
        _distance(
            "--distance",
            "choice",
            type=click.Choice(["auto", *choices]),
            default="auto",
            show_default=True,
            help="Between pictures. auto: lpips if its weights are at hand, else one that needs no download: "
            f"{stand_ins['pixel+discriminator' in choices]}.",
        ),
        _distance(
            "--weights-dir",
            metavar="DIR",
            help="Folder with the published weights.  [default: $STYLEFORGE_WEIGHTS, or the cache]",
        ),
        _distance("--offline", is_flag=True, help="Never download weights."),
    )
    return lambda command: _bundled(command, "tools", ("choice", "weights_dir", "offline"), options)


def _bundled(command: Callable[..., None], name: str, fields: tuple[str, ...], options: Any) -> Callable[..., None]:
    """The command with options whose values it takes as one dict of a name."""

    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:
        command(**{name: {field: arguments.pop(field) for field in fields}}, **arguments)

    for option in reversed(options):
        with_options = option(with_options)
    return with_options
