"""``styleforge evaluate-inversion``: what the prior is worth (Wulff & Torralba, Tables 1 and 2, Figure 2)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from styleforge.cli.inversion_options import distance_options, require_full_size, target_options, whiten_option
from styleforge.cli.options import GroupedCommand, GroupedOption, progress_bar

if TYPE_CHECKING:
    from styleforge.inversion.evaluation import Condition, Inversion, Kind, Targets
    from styleforge.networks import Generator

_model = partial(click.option, cls=GroupedOption, group="Model")
_picture = partial(click.option, cls=GroupedOption, group="Pictures")
_search = partial(click.option, cls=GroupedOption, group="Search")
_output = partial(click.option, cls=GroupedOption, group="Output")
_machine = partial(click.option, cls=GroupedOption, group="Machine")


class Weights(click.ParamType):
    """Numbers from 0 on, such as ``1e-4,1e-3``, read as a list."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        """Parses the text."""
        if isinstance(value, list):
            return value
        try:
            numbers = [float(part) for part in value.split(",")]
        except ValueError:
            numbers = [float("nan")]
        if not all(0 <= number < float("inf") for number in numbers):
            self.fail(f"got {value!r}, expected numbers from 0 on, such as 1e-4,1e-3", param, ctx)
        return list(dict.fromkeys(numbers))


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge evaluate-inversion --network demo --real held_out.zip --outdir out/inversion
  styleforge evaluate-inversion --network demo --real held_out.zip --num-steps 150 --num-steps-plus 300""",
)
@_model(
    "--network",
    required=True,
    metavar="PATH|NAME|URL",
    help="A checkpoint of any kind, a run directory (its last snapshot), a bundled model such as demo, or a URL.",
)
@_picture(
    "--real",
    "real_paths",
    multiple=True,
    required=True,
    metavar="PATH",
    help="Real pictures that the network was not trained on: a picture, folder or zip; the first --num count.",
)
@_picture("--num", type=click.IntRange(min=2), default=20, show_default=True, help="Pictures of each kind.")
@_picture(
    "--num-pairs", type=click.IntRange(min=1), default=80, show_default=True, help="Pairs to interpolate between."
)
@target_options
@_search(
    "--prior-weights",
    type=Weights(),
    default="1e-4",
    show_default=True,
    metavar="1e-4,1e-3",
    help="Values of lambda to compare with no prior; 0 searches as with a prior, and has none.",
)
@whiten_option
@_search("--num-steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Steps of Adam in W.")
@_search("--num-steps-plus", type=click.IntRange(min=1), default=10_000, show_default=True, help="In W+.")
@_search("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of pictures, noise and pairs.")
@distance_options("lpips", "random-vgg", "pixel+discriminator")
@_output("--outdir", default="out", show_default=True, metavar="DIR", help="Folder for the files.")
@_machine("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or mps.")
@_machine("--batch", type=click.IntRange(min=1), help="Targets at a time.  [default: by their size]")
def evaluate_inversion(
    network: str,
    real_paths: tuple[str, ...],
    num: int,
    num_pairs: int,
    fit: dict[str, Any],
    prior_weights: list[float],
    whiten: bool,
    num_steps: int,
    num_steps_plus: int,
    seed: int,
    tools: dict[str, Any],
    outdir: str,
    device: str,
    batch: int | None,
) -> None:
    """Measure inversion into W and W+, without and with the prior, on real and on generated pictures.

    Of generated pictures (G: one w for all layers; G+: one for each) the true latents are known, and so is the true
    interpolation between two of them. Writes inversion.json (Tables 1 and 2), inversion.png (Figures 2, 7 and 8) and
    interpolations-R.png, -G.png, -G+.png (Figure 3): in each group of rows the true interpolation, if it is known,
    then without a prior and with each. Finished conditions stay in the folder inversions, where the same command goes
    on after an interruption.
    """
    from styleforge import dist, images
    from styleforge import inversion as inv
    from styleforge.convert import load_any
    from styleforge.features.base import state_checksum
    from styleforge.files import atomic_path, write_json
    from styleforge.inversion import evaluation
    from styleforge.inversion.evaluation_plot import plot_interpolations
    from styleforge.latents import GaussianLatents

    loaded = load_any(network)
    require_full_size(loaded)
    G = loaded.generator.to(dist.pick_device(device))
    targets = _targets(G, real_paths, fit, num, seed)
    metric = inv.choose_distance(**tools, D=loaded.D).to(G.w_avg.device)
    with progress_bar("Measuring the latent space") as progress:
        gaussian = GaussianLatents.fit_cached(G, progress=progress)

    folder = Path(outdir)
    everything = evaluation.conditions(prior_weights)
    inversions: dict[Condition, Inversion] = {}
    for number, condition in enumerate(everything):
        steps = num_steps if condition.space == "w" else num_steps_plus
        wanted = targets[condition.kind].images
        config = evaluation.search_config(condition, num_steps=steps, whiten=whiten)
        question = [state_checksum(G), metric.checksum, _sha256(wanted), *condition, dataclasses.asdict(config), seed]
        path = folder / "inversions" / f"{_sha256(question)[:20]}.npz"
        with contextlib.suppress(OSError, ValueError):  # not there yet, or damaged
            inversions[condition] = evaluation.Inversion.load(path)
            continue
        title = f"{number + 1}/{len(everything)} {condition.method} on {condition.kind}"
        with progress_bar(title) as progress:
            inversions[condition] = evaluation.invert(
                G,
                wanted,
                condition,
                gaussian=gaussian,
                distance=metric,
                config=config,
                seed=seed,
                batch=batch,
                progress=progress,
            )
        with atomic_path(path) as temporary:
            inversions[condition].save(temporary)
        click.echo(f"{title}: image error {float(inversions[condition].distances.mean()):.4f}", err=True)

    rows = evaluation.summarize(
        G, targets, inversions, gaussian=gaussian, distance=metric, num_pairs=num_pairs, seed=seed
    )
    counts = {"num": num, "num_real": len(targets["R"].images), "num_pairs": num_pairs}
    settings = {"network": network, "distance": metric.name, **counts, "seed": seed}
    steps_taken = {"num_steps": num_steps, "num_steps_plus": num_steps_plus, "whiten": whiten}
    write_json(folder / "inversion.json", {**settings, **steps_taken, "conditions": rows})
    plot_interpolations(rows, folder / "inversion.png", metric.name)
    sheets: tuple[tuple[Kind, str], ...] = ("R", "w+"), ("G", "w"), ("G+", "w+")
    for kind, space in sheets:
        ways = [found.ws for at, found in inversions.items() if (at.kind, at.space) == (kind, space)]
        sheet = evaluation.contact_sheet(G, targets[kind], ways, num_pairs=min(3, len(targets[kind].images) // 2))
        images.save(sheet, folder / f"interpolations-{kind}.png")
    _print(rows)
    click.echo(f"Wrote inversion.json, inversion.png and interpolations to {folder}.")
    if metric.stand_in:
        click.echo(f"Note: {metric.name} stands in for LPIPS; its distances compare among themselves.", err=True)


def _targets(G: Generator, real_paths: Sequence[str], fit: dict[str, Any], num: int, seed: int) -> dict[Kind, Targets]:
    import torch

    from styleforge.inversion import read_targets
    from styleforge.inversion.evaluation import Targets, generated_targets

    reals = read_targets(real_paths, G, **fit, limit=num)
    if len(reals) < 2:
        raise ValueError(f"real: got {len(reals)} picture, expected 2 or more (--real)")
    return {
        "R": Targets(torch.stack([real.image for real in reals]), None),
        "G": generated_targets(G, "G", num, seed),
        "G+": generated_targets(G, "G+", num, seed),
    }


def _sha256(value: Any) -> str:
    import hashlib

    import torch

    data = value.numpy().tobytes() if isinstance(value, torch.Tensor) else json.dumps(value).encode()
    return hashlib.sha256(data).hexdigest()


def _print(rows: Sequence[dict[str, Any]]) -> None:
    """Tables 1 and 2 in one."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    numbers = [("image_error", kind) for kind in ("R", "G", "G+")] + [("latent_error", kind) for kind in ("G", "G+")]
    for name, kind in numbers:
        table.add_column(f"{name.partition('_')[0]} {kind}", justify="right", no_wrap=True)
    for kind in ("G", "G+"):
        table.add_column(f"midpoint {kind}", justify="right", no_wrap=True)
    for method in dict.fromkeys(row["method"] for row in rows):
        found = {row["kind"]: row for row in rows if row["method"] == method}
        cells = [found.get(kind, {}).get(name) for name, kind in numbers]
        for kind in ("G", "G+"):
            errors = found.get(kind, {}).get("interpolation_image_error")
            cells.append(None if errors is None else errors[len(errors) // 2])
        table.add_row(method, *("" if cell is None else f"{cell:.4g}" for cell in cells))
    Console(width=max(Console().width, 100)).print(table)  # rather wrapped by the terminal than cut off
