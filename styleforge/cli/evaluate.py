"""``styleforge evaluate``: metrics of a generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from styleforge.cli.options import GroupedCommand, GroupedOption, extractor_options, progress_bar

if TYPE_CHECKING:
    from styleforge.metrics import Measurement
    from styleforge.metrics.pictures import GeneratedPictures
    from styleforge.metrics.tools import Tools
    from styleforge.networks import Generator

_measure = partial(click.option, cls=GroupedOption, group="Measurement")
_machine = partial(click.option, cls=GroupedOption, group="Machine")
_output = partial(click.option, cls=GroupedOption, group="Output")


class Range(click.ParamType):
    """``0.3:1.0:0.1``, read as the list of numbers from first to last.

    Args:
        above: All of them must be above this.
    """

    name = "first:last:step"

    def __init__(self, above: float = -math.inf) -> None:
        self.above = above

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        """Parses the text."""
        if isinstance(value, list):
            return value
        try:
            first, last, step = (float(part) for part in str(value).split(":"))
            count = math.floor((last - first) / step + 1e-9)  # never beyond the last, but for rounding
            if count < 0 or step <= 0 or count > 100:
                raise ValueError
        except (ValueError, ZeroDivisionError, OverflowError):
            self.fail(
                f"got {value!r}, expected FIRST:LAST:STEP such as 0.3:1.0:0.1, of at most 101 numbers", param, ctx
            )
        if first <= self.above:
            self.fail(f"got {value!r}, expected numbers above {self.above:g}", param, ctx)
        return [round(first + i * step, 10) for i in range(count + 1)]


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge evaluate --network runs/00000-auto-photos-gpus1-batch16-gamma0.8 --data photos.zip
  styleforge evaluate --network X --data D --metrics fid50k_full,pr50k3_full,ppl2_wend
  styleforge evaluate --network demo --data portraits.zip --metrics fid5k_full,pr5k3 --extractor random-vgg
  styleforge evaluate --network X --data D --metrics fid50k_full,pr50k3_full --sweep-trunc 0.3:1.0:0.1
  styleforge evaluate --network X --per-image-ppl 1000
  torchrun --nproc-per-node 8 -m styleforge.cli.main evaluate --network X --data D""",
)
@_measure(
    "--network",
    required=True,
    metavar="PATH|NAME|URL",
    help="A checkpoint of any kind, a run directory, a bundled model, or a URL.",
)
@_measure("--data", metavar="PATH", help="The real pictures: zip, folder or LMDB.")
@_measure("--mirror", is_flag=True, help="Mirror images are real pictures, too, as for networks trained with --mirror.")
@_measure(
    "--metrics", metavar="NAMES",
    help="Such as fid50k_full,pr50k3_full,ppl2_wend, with any count, as in fid10k_full.  [default: fid50k_full]",
)  # fmt: skip
@extractor_options(default="published")
@_measure("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of latents, labels and noise.")
@_measure(
    "--trunc", "--truncation-psi", "truncation_psi", type=float, default=1.0, show_default=True, metavar="PSI",
    help="Truncation: 1 is off.",
)  # fmt: skip
@_measure(
    "--compress", type=click.FloatRange(min=0, min_open=True), metavar="TAU",
    help="Compress what is rare in w (Wulff & Torralba, Eq. 6).",
)  # fmt: skip
@_measure("--sweep-trunc", type=Range(), metavar="FIRST:LAST:STEP", help="Measure at each of these PSI, and plot.")
@_measure(
    "--sweep-compress", type=Range(above=0), metavar="FIRST:LAST:STEP", help="Measure at each of these TAU, and plot."
)
@_measure(
    "--per-image-ppl", type=click.IntRange(min=10), is_flag=False, flag_value=1000, metavar="[NUM]",
    help="Path lengths of NUM single pictures: histogram, and grids of the lowest and highest tenth.  [default: 1000]",
)  # fmt: skip
@_measure(
    "--lod", type=float, help="Level of detail of a progressive network; 1 halves it once.  [default: as trained]",
)  # fmt: skip
@_machine("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or mps.")
@_machine("--batch", type=click.IntRange(min=1), help="Pictures at a time; by default 1 to 32, by their size.")
@_output(
    "--outdir", metavar="DIR",
    help="For metric-<name>.jsonl, tables and plots.  [default: the network's run directory, or out]",
)  # fmt: skip
def evaluate(
    network: str,
    data: str | None,
    mirror: bool,
    metrics: str | None,
    tools: dict[str, Any],
    device: str,
    batch: int | None,
    seed: int,
    truncation_psi: float,
    compress: float | None,
    sweep_trunc: list[float] | None,
    sweep_compress: list[float] | None,
    per_image_ppl: int | None,
    lod: float | None,
    outdir: str | None,
) -> None:
    """Measure a generator: FID, KID, precision and recall, inception score, path lengths.

    The same command gives the same numbers. Statistics of real pictures are kept in the cache, and a killed evaluation
    goes on where it was. Numbers that were not made with the published networks carry the extractor's name.
    """
    from styleforge import dist

    if sweep_trunc is not None and sweep_compress is not None:
        raise click.UsageError("got both --sweep-trunc and --sweep-compress, expected one of them")
    if (sweep_trunc is not None and truncation_psi != 1) or (sweep_compress is not None and compress is not None):
        raise click.UsageError("got a value and a sweep of the same, expected one of them")
    if per_image_ppl is not None and (truncation_psi != 1 or compress is not None or lod):
        raise click.UsageError(
            "got --per-image-ppl with --trunc, --compress or --lod, expected none of them, since path lengths are "
            "those of the whole network and latent space"
        )
    where = dist.pick_device(device)
    with dist.Group(where):
        with dist.together():
            job = _Job(network, data, mirror, tools, where, batch, seed, lod, outdir)
        if per_image_ppl is not None:
            job.per_image(per_image_ppl)
            if metrics is None:
                return
        names = metrics or "fid50k_full"
        if sweep_trunc is not None or sweep_compress is not None:
            job.sweep(names, truncation_psi, compress, sweep_trunc, sweep_compress)
        else:
            job.measure(names, truncation_psi, compress)


class _Job:
    """What the command works on."""

    def __init__(
        self,
        network: str,
        data: str | None,
        mirror: bool,
        tools: dict[str, Any],
        device: Any,
        batch: int | None,
        seed: int,
        lod: float | None,
        outdir: str | None,
    ) -> None:
        from styleforge import checkpoint
        from styleforge.convert import load_any
        from styleforge.metrics import open_data
        from styleforge.metrics.tools import Tools

        self.path = checkpoint.resolve(network)
        loaded = load_any(self.path)
        self.G: Generator = loaded.generator.to(device)
        self.tools: Tools = Tools(D=loaded.D, device=device, **tools)
        self.dataset = open_data(data, self.G, mirror=mirror)
        self.batch, self.seed, self.lod = batch, seed, loaded.lod if lod is None else lod
        in_run = (self.path.parent / "training_options.json").exists()
        self.folder = Path(outdir or (self.path.parent if in_run else "out"))

    def pictures(self, truncation_psi: float, compress: float | None) -> GeneratedPictures:
        """The pictures that are measured."""
        from styleforge.latents import GaussianLatents
        from styleforge.metrics.pictures import GeneratedPictures

        transform = None
        if compress is not None:
            transform = partial(GaussianLatents.fit_cached(self.G).compress, tau=compress)
        return GeneratedPictures(
            self.G,
            seed=self.seed,
            labels=self.dataset,
            truncation_psi=truncation_psi,
            transform=transform,
            transform_name="" if compress is None else f"compress{compress:g}",
            lod=self.lod,
            batch=self.batch,
        )

    def run(self, names: str, pictures: GeneratedPictures, keep: bool = False) -> list[Measurement]:
        """Measures."""
        from styleforge.metrics import measure

        with progress_bar("Measuring") as progress:
            return measure(pictures, names, self.tools, progress=progress, keep=keep)

    def measure(self, names: str, truncation_psi: float, compress: float | None) -> None:
        """Measures once, and prints a table."""
        from styleforge import dist
        from styleforge.metrics import records

        found = self.run(names, self.pictures(truncation_psi, compress))
        if dist.rank() == 0:
            records.write(found, self.folder, self.path.name)
            _print(found)
            click.echo(f"Appended to {', '.join(f'metric-{m.metric}.jsonl' for m in found)} in {self.folder}.")

    def sweep(
        self,
        names: str,
        truncation_psi: float,
        compress: float | None,
        sweep_trunc: list[float] | None,
        sweep_compress: list[float] | None,
    ) -> None:
        """Measures at each value, and draws the curves; what a killed sweep has measured is not measured again."""
        from styleforge import dist
        from styleforge.metrics import forget, records, require_measurable, sweep
        from styleforge.metrics.recipes import parse_list

        kind, values = ("trunc", sweep_trunc) if sweep_trunc is not None else ("compress", sweep_compress or [])
        points: list[tuple[float, list[Measurement]]] = []
        every_pictures = [
            self.pictures(*((value, compress) if kind == "trunc" else (truncation_psi, value))) for value in values
        ]
        for recipe in parse_list(names):
            for pictures in every_pictures:  # the last one, too, before any work
                require_measurable(recipe, pictures)
        for value, pictures in zip(values, every_pictures, strict=True):
            points.append((value, self.run(names, pictures, keep=True)))
            if dist.rank() == 0:
                numbers = {name: number for m in points[-1][1] for name, number in m.results.items()}
                click.echo(f"{kind} {value:g}: " + ", ".join(f"{name} {n:.5g}" for name, n in numbers.items()))
        if dist.rank() == 0:
            for _, found in points:
                records.write(found, self.folder, self.path.name)
            written = sweep.write(points, kind, self.folder)
            for pictures in every_pictures:
                forget(pictures)
            click.echo(f"Wrote {', '.join(path.name for path in written)} to {self.folder}.")

    def per_image(self, num: int) -> None:
        """Path lengths of single pictures."""
        from styleforge import dist
        from styleforge.metrics.per_image import per_image_report

        with progress_bar("Measuring single pictures") as progress:
            report = per_image_report(self.pictures(1.0, None), self.tools, num, progress=progress)
        if dist.rank() == 0:
            written = report.write(self.folder)
            click.echo(f"{report.summary()}\nWrote {', '.join(path.name for path in written)} to {self.folder}.")


def _print(measurements: Sequence[Measurement]) -> None:
    """Shows measurements as a table, and their notes."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("metric", "value", "generated", "real", "extractor"):
        justify: Literal["left", "right"] = "left" if column in ("metric", "extractor") else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for m in measurements:
        for name, value in m.results.items():
            table.add_row(name, f"{value:.6g}", str(m.num_generated), str(m.num_real or "-"), m.extractor)
    Console().print(table)
    for note in dict.fromkeys(note for m in measurements for note in m.notes):
        click.echo(f"Note: {note}", err=True)
