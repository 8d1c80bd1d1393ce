"""``styleforge analyze diversity``: truncation against compression at the same FID."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from styleforge.cli.options import GroupedCommand, GroupedOption, extractor_options, progress_bar

_model = partial(click.option, cls=GroupedOption, group="Model")
_measure = partial(click.option, cls=GroupedOption, group="Measurement")
_machine = partial(click.option, cls=GroupedOption, group="Machine")
_output = partial(click.option, cls=GroupedOption, group="Output")


class Numbers(click.ParamType):
    """``0.9,0.7``, read as a list of numbers above 0."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        """Parses the text."""
        if isinstance(value, list):
            return value
        try:
            numbers = [float(part) for part in str(value).split(",")]
        except ValueError:
            numbers = []
        if not numbers or not all(0 < number < float("inf") for number in numbers):
            self.fail(f"got {value!r}, expected numbers above 0 with commas between them, such as 0.9,0.7", param, ctx)
        return numbers


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge analyze diversity --network X --data photos.zip
  styleforge analyze diversity --network demo --data portraits.zip --extractor random-vgg --num-fid 2000""",
)
@_model(
    "--network",
    required=True,
    metavar="PATH|NAME|URL",
    help="A checkpoint of any kind, a run directory (its last snapshot), a bundled model such as demo, or a URL.",
)
@_measure("--data", required=True, metavar="PATH", help="Real pictures, for FID: zip, folder or LMDB.")
@_measure("--psi", type=Numbers(), default="0.9,0.7,0.5", show_default=True, metavar="PSI,…", help="Truncations.")
@_measure(
    "--taus",
    type=Numbers(),
    metavar="TAU,…",
    help="Thresholds between which those of the same FID are looked for.  [default: 2 to 0.12 in 9 steps]",
)
@_measure(
    "--num", type=click.IntRange(min=40), default=1024, show_default=True, help="Pictures for mean and similarity."
)
@_measure("--num-fid", type=click.IntRange(min=2), default=5000, show_default=True, help="Pictures for each FID.")
@_measure("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of latents, labels and noise.")
@extractor_options(default="auto")
@_machine("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or mps.")
@_machine("--batch", type=click.IntRange(min=1), help="Pictures at a time; by default 1 to 32, by their size.")
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for diversity.json and pictures.")
def diversity(
    network: str,
    data: str,
    psi: list[float],
    taus: list[float] | None,
    num: int,
    num_fid: int,
    seed: int,
    tools: dict[str, Any],
    device: str,
    batch: int | None,
    outdir: str,
) -> None:
    """Compare truncation with compression at the same FID: what does each cost in variety and identity?

    Figures 4 to 6 of Wulff & Torralba: mean picture and deviation of pixels, similarity to the uncorrected picture in
    the feature space of the extractor, and whether artifacts lie in the tails of V.
    """
    from styleforge import dist
    from styleforge.analysis.diversity import TAUS, diversity_report
    from styleforge.convert import load_any
    from styleforge.metrics import open_data
    from styleforge.metrics.pictures import GeneratedPictures
    from styleforge.metrics.tools import Tools

    where = dist.pick_device(device)
    loaded = load_any(network)
    G = loaded.generator.to(where)
    pictures = GeneratedPictures(G, seed=seed, labels=open_data(data, G), lod=loaded.lod, batch=batch)
    chosen = sorted(taus or TAUS, reverse=True)
    with progress_bar("Measuring") as progress:
        report = diversity_report(
            pictures,
            Tools(D=loaded.D, device=where, **tools),
            psis=sorted(psi, reverse=True),
            taus=chosen,
            num=num,
            num_fid=num_fid,
            progress=progress,
        )
    settings = {"network": network, "data": data, "num": num, "num_fid": num_fid, "seed": seed, **tools}
    written = report.write(outdir, settings)
    click.echo(f"{report.summary()}\nWrote {', '.join(path.name for path in written)} to {outdir}.")
