"""``styleforge report``: everything about a generator on one HTML page."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click

from styleforge.cli.options import GroupedCommand, GroupedOption, extractor_options, progress_bar

_model = partial(click.option, cls=GroupedOption, group="Model")
_measure = partial(click.option, cls=GroupedOption, group="Measurement")
_machine = partial(click.option, cls=GroupedOption, group="Machine")
_output = partial(click.option, cls=GroupedOption, group="Output")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge report --network demo
  styleforge report --network demo --data portraits.zip --portraits --output demo.html
  styleforge report --network X --only samples,droplets,resolutions --num 50""",
)
@_model(
    "--network",
    required=True,
    metavar="PATH|NAME|URL",
    help="A checkpoint of any kind, a run directory, a bundled model, or a URL.",
)
@_measure("--data", metavar="PATH", help="Real pictures, for metrics, spectra and diversity: zip, folder or LMDB.")
@_measure("--num", type=click.IntRange(min=16), default=200, show_default=True, help="Pictures of an analysis.")
@_measure("--num-fid", type=click.IntRange(min=100), default=5000, show_default=True, help="Pictures of a metric.")
@_measure("--portraits", is_flag=True, help="The network was trained on `styleforge data demo`: look at factors, too.")
@_measure("--only", metavar="NAMES", help="Sections, with commas between.  [default: all that can be had]")
@_measure("--skip", metavar="NAMES", default="", help="Sections to leave out, with commas between.")
@extractor_options(default="auto")
@_machine("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or mps.")
@_machine("--batch", type=click.IntRange(min=1), help="Pictures at a time; by default 1 to 32, by their size.")
@_output("--output", default="report.html", show_default=True, metavar="FILE", help="The page.")
@_output("--outdir", metavar="DIR", help="Keep all pictures and numbers as files here, too.")
def report(
    network: str,
    data: str | None,
    num: int,
    num_fid: int,
    portraits: bool,
    only: str | None,
    skip: str,
    tools: dict[str, Any],
    device: str,
    batch: int | None,
    output: str,
    outdir: str | None,
) -> None:
    """Run every analysis that a generator can have, and put all on one page that opens anywhere.

    Pictures lie inside the page. What this network cannot have is said in its place.
    """
    from styleforge import checkpoint, dist
    from styleforge.analysis.html import write_page
    from styleforge.analysis.report import ANALYSES, Subject
    from styleforge.analysis.report import report as make
    from styleforge.convert import load_any
    from styleforge.metrics import Tools, open_data

    where = dist.pick_device(device)
    path = checkpoint.resolve(network)
    loaded = load_any(path)
    G = loaded.generator.to(where)
    subject = Subject(
        G=G,
        data=open_data(data, G),
        tools=Tools(D=loaded.D, device=where, **tools),
        num=num,
        num_fid=num_fid,
        lod=loaded.lod,
        batch=batch,
    )
    names = [name for name, analysis in ANALYSES.items() if portraits or not analysis.portraits]
    if only is not None:
        names = [name.strip() for name in only.split(",")]
    left_out = {name.strip() for name in skip.split(",")} - {""}
    if unknown := left_out - set(ANALYSES):
        raise click.UsageError(f"--skip: got {min(unknown)!r}, expected names among {', '.join(ANALYSES)}")
    names = [name for name in names if name not in left_out]

    height, width = G.config.size
    facts = {
        "network": network,
        "pictures": f"{width}×{height}, {G.img_channels} channels",
        "labels": f"{G.c_dim}, all classes in turn" if G.c_dim else "none",
        "architecture": f"{G.config.architecture}, {G.config.style_block}",
        "parameters": f"{sum(p.numel() for p in G.parameters()):,}",
        "trained on": f"{loaded.info['kimg']:g} thousand images" if "kimg" in loaded.info else "unknown",
        "real pictures": data or "none",
        "level of detail": f"{loaded.lod:g}: it is still growing" if loaded.lod else "full",
        "seeds": f"0 to {num - 1}, without truncation",
    }
    with tempfile.TemporaryDirectory() as temporary, progress_bar("Looking") as progress:
        subject.progress = progress
        sections = make(subject, names, outdir or temporary, lambda title: click.echo(title))
        write_page(output, f"Report on {Path(network).name}", facts, sections)
    size = Path(output).stat().st_size / 2**20
    click.echo(f"Wrote {output} ({size:.1f} MB); it opens in any browser.")
