"""``styleforge``: a table of verbs, each imported only when it is called, so that ``--help`` is instant."""

from __future__ import annotations

import os
import sys

import click

from styleforge import __version__
from styleforge.cli.lazy import LazyGroup

VERBS: dict[str, tuple[str, str]] = {
    "data": ("styleforge.cli.data:data", "Pack, check and draw datasets."),
    "train": ("styleforge.cli.train:train", "Train a generator on a dataset, or go on with a run."),
    "curves": ("styleforge.cli.curves:curves", "Draw the curves of training runs."),
    "evaluate": ("styleforge.cli.evaluate:evaluate", "Measure a generator: FID, KID, precision, recall, path length."),
    "compare": ("styleforge.cli.compare:compare", "Measure several generators, and show them side by side."),
    "analyze": ("styleforge.cli.analyze:analyze", "Look into a generator: what it makes, and what goes wrong in it."),
    "report": ("styleforge.cli.report:report", "Put every analysis of a generator on one HTML page."),
    "generate": ("styleforge.cli.generate:generate", "Make pictures from seeds or projected latents."),
    "project": ("styleforge.cli.project:project", "Find the latents of given pictures."),
    "attribute": ("styleforge.cli.attribute:attribute", "Find out which network made a picture."),
    "evaluate-inversion": (
        "styleforge.cli.evaluate_inversion:evaluate_inversion",
        "Measure how well inversion finds the true latents.",
    ),
    "mix": ("styleforge.cli.mix:mix", "Make a matrix of pictures that mix the styles of two seeds."),
    "video": ("styleforge.cli.video:video", "Make an animation that loops through seeds or projected latents."),
    "demo": ("styleforge.cli.demo:demo", "Draw a dataset, train on it, make pictures: all in a few minutes."),
    "convert": ("styleforge.cli.convert:convert", "Turn a network of any kind of file into another kind."),
    "inspect": ("styleforge.cli.inspect:inspect", "Show what a file of any kind holds."),
    "bench": ("styleforge.cli.bench:bench", "Time training and inference, next to what this machine can do."),
    "summary": ("styleforge.cli.summary:summary", "Show the networks of a preset: blocks, shapes and parameters."),
}
"""See `styleforge.cli.lazy.LazyGroup`."""


@click.command(
    cls=LazyGroup,
    verbs=VERBS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command explains itself: styleforge COMMAND --help",
)
@click.version_option(__version__, prog_name="styleforge")
def cli() -> None:
    """Train, measure, invert, edit and analyse style-based generators (StyleGAN, StyleGAN2)."""


def main() -> None:
    """Runs the command line; an error that the user can mend is one sentence and exit code 1, without a traceback.

    ``STYLEFORGE_DEBUG=1`` shows the traceback, for reports of bugs.
    """
    # PyTorch's threads wait for each other after each piece of work: awake for a moment, which small networks need (a
    # fifth of their speed), then asleep, since on a machine that does other work, too, threads that spin made training
    # 3 to 6 times as slow. The number is for GNU's OpenMP, which PyTorch has on Linux, the policy for others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    try:
        code = cli(standalone_mode=False)  # click returns the exit code here instead of exiting
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        if os.environ.get("STYLEFORGE_DEBUG"):
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
