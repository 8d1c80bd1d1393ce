"""``styleforge curves``: how training went, as one picture."""

from __future__ import annotations

import click


@click.command(
    epilog="""\b
Examples:
  styleforge curves runs/00000-auto-photos_256-gpus1-batch16-gamma0.8
  styleforge curves runs/00000-* runs/00001-* --out comparison.png"""
)
@click.argument("run_dirs", nargs=-1, required=True, metavar="RUN_DIR...")
@click.option("--out", metavar="FILE", help="Picture to write.  [default: curves.png in the first run directory]")
def curves(run_dirs: tuple[str, ...], out: str | None) -> None:
    """Draw the curves of up to four training runs: logits, losses, penalties, speed, metrics."""
    from pathlib import Path

    from styleforge.training.curves import plot_curves

    path = Path(out) if out is not None else Path(run_dirs[0]) / "curves.png"
    plot_curves(run_dirs, path)
    click.echo(f"Wrote {path}.")
