"""``styleforge compare``: several generators in one table and one plot."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from styleforge.cli.options import GroupedCommand, GroupedOption, extractor_options, progress_bar

_measure = partial(click.option, cls=GroupedOption, group="Measurement")
_machine = partial(click.option, cls=GroupedOption, group="Machine")


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge compare runs/00000-config-e-photos runs/00001-config-f-photos --data photos.zip
  styleforge compare a.safetensors b.safetensors --data D --metrics fid5k_full,pr5k3 --extractor random-vgg""",
)
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK...")
@_measure("--data", required=True, metavar="PATH", help="The real pictures: zip, folder or LMDB.")
@_measure("--mirror", is_flag=True, help="Mirror images are real pictures, too, as for networks trained with --mirror.")
@_measure(
    "--metrics",
    default="fid50k_full,pr50k3_full,ppl2_wend",
    show_default=True,
    metavar="NAMES",
    help="As in `styleforge evaluate`.",
)
@extractor_options(default="published")
@_measure("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of latents, labels and noise.")
@_measure(
    "--lod", type=float, help="Level of detail of progressive networks; 1 halves them once.  [default: as trained]",
)  # fmt: skip
@_machine("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or mps.")
@_machine("--batch", type=click.IntRange(min=1), help="Pictures at a time; by default 1 to 32, by their size.")
@_machine("--outdir", default="out", show_default=True, metavar="DIR", help="For comparison.json and comparison.png.")
def compare(
    networks: tuple[str, ...],
    data: str,
    mirror: bool,
    metrics: str,
    tools: dict[str, Any],
    seed: int,
    lod: float | None,
    device: str,
    batch: int | None,
    outdir: str,
) -> None:
    """Measure generators on the same data and with the same latents, and show them side by side (Table 1).

    With --extractor discriminator all are seen with the eyes of the first network's discriminator. A killed comparison
    goes on where it was.
    """
    from rich.console import Console
    from rich.table import Table

    from styleforge import dist
    from styleforge.convert import load_any
    from styleforge.metrics import Tools, comparison, forget, measure, open_data
    from styleforge.metrics.pictures import GeneratedPictures
    from styleforge.metrics.recipes import parse_list

    where = dist.pick_device(device)
    parse_list(metrics)
    with dist.Group(where):
        with dist.together():  # before any work
            loaded = [load_any(network) for network in networks]
            datasets = [open_data(data, one.generator, mirror=mirror) for one in loaded]
        every_tool = Tools(D=loaded[0].D, device=where, **tools)
        every_pictures = [
            GeneratedPictures(
                one.generator, seed=seed, labels=dataset, lod=one.lod if lod is None else lod, batch=batch
            )
            for one, dataset in zip(loaded, datasets, strict=True)
        ]
        rows = []
        for network, pictures in zip(networks, every_pictures, strict=True):
            G = pictures.G.to(where)
            with progress_bar(f"Measuring {network}") as progress:
                found = measure(pictures, metrics, every_tool, progress=progress, keep=True)
            speed = comparison.images_per_sec(G, pictures.batch, pictures.lod)
            parameters = sum(p.numel() for p in G.parameters())
            name = _short(network, networks)
            rows.append(comparison.Row(name=name, measurements=found, images_per_sec=speed, parameters=parameters))
            G.cpu()
        if dist.rank() != 0:
            return
        table = Table(box=None, pad_edge=False)
        table.add_column("network")
        names = list(dict.fromkeys(name for row in rows for name in row.numbers))
        for name in names:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(row.name, *(f"{row.numbers[name]:.5g}" if name in row.numbers else "-" for name in names))
        Console().print(table)
        for note in dict.fromkeys(note for row in rows for m in row.measurements for note in m.notes):
            click.echo(f"Note: {note}", err=True)
        written = comparison.write(rows, outdir)
        for pictures in every_pictures:
            forget(pictures)
        click.echo(f"Wrote {', '.join(path.name for path in written)} to {outdir}.")


def _short(network: str, networks: tuple[str, ...]) -> str:
    """The last part of a path where that tells the networks apart, else all of it."""
    last = [one.rstrip("/").rpartition("/")[2] for one in networks]
    short = network.rstrip("/").rpartition("/")[2]
    return short if last.count(short) == 1 else network
