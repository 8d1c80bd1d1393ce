"""``styleforge analyze normality``: how normal latents are in W and in V."""

from __future__ import annotations

from functools import partial

import click

from styleforge.cli.options import GroupedCommand, GroupedOption

_model = partial(click.option, cls=GroupedOption, group="Model")
_measure = partial(click.option, cls=GroupedOption, group="Measurement")
_machine = partial(click.option, cls=GroupedOption, group="Machine")
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge analyze normality --network demo --outdir out
  styleforge analyze normality --network X --class 3 --num 50000""",
)
@_model(
    "--network",
    required=True,
    metavar="PATH|NAME|URL",
    help="A checkpoint of any kind, a run directory (its last snapshot), a bundled model such as demo, or a URL.",
)
@_model("--class", "label", metavar="CLASS", help="Of a conditional network: one class or label.  [default: all]")
@_measure("--num", type=click.IntRange(min=2), default=10_000, show_default=True, help="Samples of w.")
@_measure("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the samples.")
@_machine("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or mps.")
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for normality.json and .png.")
def normality(network: str, label: str | None, num: int, seed: int, device: str, outdir: str) -> None:
    """Measure how normal the distributions of latents are, in W and in V.

    Figure 1 of Wulff & Torralba: every dimension against the normal distribution of its mean and deviation. The
    Gaussian prior of projections, and --compress, rely on V being normal.
    """
    from styleforge import dist
    from styleforge.analysis.normality_report import normality_report
    from styleforge.convert import load_any
    from styleforge.latents import parse_label

    G = load_any(network).generator.to(dist.pick_device(device))
    c = None if label is None else parse_label(label, G.c_dim)
    report = normality_report(G, num, seed, c=c)
    written = report.write(outdir, {"network": network, "class": label, "seed": seed})
    click.echo(f"{report.summary()}\nWrote {', '.join(path.name for path in written)} to {outdir}.")
