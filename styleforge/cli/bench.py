"""``styleforge bench``: how fast this machine trains and runs a preset."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from styleforge.cli.options import Resolution, progress_bar

if TYPE_CHECKING:
    from styleforge.analysis.speed import SpeedReport

_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@click.command(
    epilog="""\b
Examples:
  styleforge bench --preset config-f --resolution 64 --batch 4
  styleforge bench --preset config-f --resolution 256 --batch 32 --dtype bfloat16 --json
  styleforge bench --preset config-f --resolution 32 --cbase 2048 --cmax 64 --batch 16""",
)
@click.option(
    "--preset", "--cfg", default="auto", show_default=True, metavar="NAME", help="As --cfg of `styleforge train`."
)
@click.option("--resolution", type=Resolution(), metavar="WxH", default="64", show_default=True, help="Size in pixels.")
@click.option("--batch", type=click.IntRange(min=1), help="Images at a time.  [default: the preset's]")
@click.option(
    "--dtype", type=click.Choice(list(_PRECISIONS)), default="float32", show_default=True, help="Of features."
)
@click.option(
    "--cbase", type=click.IntRange(min=1), metavar="INT", help="Channels at resolution r are min(cbase / r, cmax)."
)
@click.option("--cmax", type=click.IntRange(min=1), metavar="INT", help="Upper limit of the channels.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or mps.")
@click.option(
    "--workers", type=click.IntRange(min=0), default=2, show_default=True, help="Processes that read pictures."
)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Medians are over so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(
    preset: str,
    resolution: tuple[int, int],
    batch: int | None,
    dtype: str,
    cbase: int | None,
    cmax: int | None,
    device: str,
    workers: int,
    repeats: int,
    as_json: bool,
) -> None:
    """Time inference, training steps, data and checkpoints of a preset.

    Each work is given in seconds and as a share of the rate of a plain 3×3 convolution, measured in the same minutes:
    that tells how well the machine is used, whatever machine it is. Give it an idle one.
    """
    from styleforge import dist
    from styleforge.analysis.speed import measure_speed
    from styleforge.training import training_preset

    kind = dist.pick_device(device).type
    if dtype == "float16" and kind != "cuda":
        raise click.UsageError(f"--dtype: got float16 on {kind}, expected float32 or bfloat16 there")
    config = training_preset(preset, resolution, batch=batch, device=device, channel_base=cbase, channel_max=cmax)
    config = dataclasses.replace(
        config,
        precision=_PRECISIONS[dtype],  # type: ignore[arg-type]
        device=device,
        workers=workers,
    )
    with progress_bar(f"Timing {preset}") as progress:
        report = measure_speed(config, repeats=repeats, progress=progress)
    if as_json:
        values = dataclasses.asdict(report)
        click.echo(json.dumps(values.pop("works") | values, indent=2))
        return
    _print(preset, report)


def _print(preset: str, report: SpeedReport) -> None:
    """The report as a table."""
    from rich.console import Console
    from rich.table import Table

    title = f"{preset}, batch {report.batch}, {report.dtype}, {report.device}"
    table = Table(title=title, title_justify="left")
    table.add_column("work")
    for column in ("seconds", "GFLOP", "images/s", "share of peak"):
        table.add_column(column, justify="right")
    for name, timing in report.works.items():
        rate = f"{timing.images / timing.seconds:.1f}"
        share = f"{timing.share_of_peak:.0%}"
        table.add_row(name.replace("_", " "), f"{timing.seconds:.3f}", f"{timing.gflop:.1f}", rate, share)
    console = Console()
    console.print(table)
    console.print(
        f"training {report.train_img_per_sec:.2f} images/s ({1000 / report.train_img_per_sec:.1f} s/kimg), "
        f"loading {report.loader_img_per_sec:.0f} images/s\n"
        f"plain convolution {report.peak_conv_gflops:.0f} GFLOP/s, peak memory {report.peak_memory_gb:.2f} GB\n"
        f"checkpoint {report.checkpoint_sec:.2f} s, start-up {report.startup_sec:.2f} s"
    )
