"""``styleforge train``: start a run, or go on with one."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from styleforge.cli.options import GroupedCommand, GroupedOption

if TYPE_CHECKING:
    from styleforge.networks import Generator
    from styleforge.training import TrainConfig, TrainResult
    from styleforge.training.loop import OnSnapshot

_data = partial(click.option, cls=GroupedOption, group="Data")
_run = partial(click.option, cls=GroupedOption, group="Run")
_size = partial(click.option, cls=GroupedOption, group="Size and length")
_learning = partial(click.option, cls=GroupedOption, group="Learning")
_output = partial(click.option, cls=GroupedOption, group="Output")

# Flag -> field of TrainConfig, for the flags that only set one.
_FIELDS = {
    "data": "data",
    "mirror": "mirror",
    "subset": "subset",
    "cache": "cache",
    "workers": "workers",
    "kimg": "total_kimg",
    "batch_gpu": "batch_gpu",
    "checkpoint_from": "checkpoint_resolution",
    "gamma": "gamma",
    "glr": "g_lr",
    "dlr": "d_lr",
    "tick": "kimg_per_tick",
    "snap": "snapshot_ticks",
    "keep": "keep",
    "seed": "seed",
    "device": "device",
    "precision": "precision",
    "outdir": "outdir",
    "desc": "desc",
    "extractor": "extractor",
}
_MAY_CHANGE = (
    "data", "kimg", "batch_gpu", "checkpoint_from", "workers", "tick", "snap", "keep", "device", "precision",
    "metrics", "extractor",
)  # fmt: skip
"""Flags that --resume takes: none of them changes what the run has been so far."""


def _count_or_auto(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    return value if value in (None, "auto") else click.INT.convert(value, parameter, ctx)


@click.command(
    cls=GroupedCommand,
    epilog="""\b
Examples:
  styleforge train --data photos_256.zip --outdir runs
  styleforge train --data photos_256.zip --cfg config-f --gamma 1 --mirror --kimg 5000
  styleforge train --data car_512x384.zip --cfg config-e --dry-run
  styleforge train --resume runs/00000-auto-photos_256-gpus1-batch16-gamma0.8
  styleforge train --data paintings.zip --init-from runs/00000-auto-photos_256-gpus1-batch16-gamma0.8
  torchrun --nproc-per-node 8 -m styleforge.cli.main train --data photos_1024.zip --cfg config-f""",
)
@_data("--data", metavar="PATH", help="Dataset: zip, folder or LMDB (`styleforge data pack` makes one).")
@_data("--cond", is_flag=True, help="Train on the dataset's labels.")
@_data("--mirror", is_flag=True, help="Show every picture mirrored, too.")
@_data("--subset", type=int, metavar="N", help="Use N pictures only.")
@_data("--cache", is_flag=True, help="Keep decoded pictures in memory.")
@_data("--workers", type=int, metavar="N", help="Processes that read pictures; 0 reads in the training process.")
@_run("--outdir", metavar="DIR", help="Where run directories are made.  [default: runs]")
@_run("--resume", metavar="RUN_DIR", help="Go on with a run exactly where its last checkpoint is, with its settings.")
@_run("--init-from", metavar="CHECKPOINT", help="Start from the weights of another network (transfer learning).")
@_run("--seed", type=int, metavar="N", help="Initial weights, order of the pictures, random numbers.  [default: 0]")
@_run("--minutes", type=float, metavar="N", help="Save and stop after N minutes; --resume goes on.")
@_run("--device", metavar="NAME", help="auto, cpu, cuda or mps.  [default: auto]")
@_run("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), help="auto is bf16 on CUDA, else fp32.")
@_run("--fp32", is_flag=True, help="The same as --precision fp32.")
@_run("--dry-run", "-n", is_flag=True, help="Print the resolved configuration and stop.")
@_size(
    "--cfg",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto, config-a … config-f (Table 1), or config-e-g{orig,skip,resnet}-d{orig,skip,resnet} (Table 2).",
)
@_size("--kimg", type=float, metavar="N", help="Length in thousands of real images shown.  [default: 25000]")
@_size("--batch", type=int, metavar="N", help="Images per step, over all processes.")
@_size(
    "--batch-gpu",
    callback=_count_or_auto,
    metavar="N",
    help="Images at a time in each process; less saves memory. auto tries what fits.",
)
@_size(
    "--checkpoint-from",
    type=int,
    metavar="RES",
    help="Compute activations of this resolution and above twice instead of keeping them, which saves memory.",
)
@_size("--cbase", type=click.IntRange(min=1), metavar="N", help="Channels at resolution r are min(cbase / r, cmax).")
@_size("--cmax", type=click.IntRange(min=1), metavar="N", help="Upper limit of the channels.")
@_size("--map-depth", type=int, metavar="N", help="Layers of the mapping network.")
@_learning("--gamma", type=float, metavar="X", help="Weight of R1: higher is stabler, lower is sharper.")
@_learning("--glr", type=float, metavar="X", help="Learning rate of the generator.")
@_learning("--dlr", type=float, metavar="X", help="Learning rate of the discriminator.")
@_learning("--mbstd-group", type=int, metavar="N", help="Group size of the minibatch standard deviation.")
@_learning(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=JSON",
    help="Any other field that --dry-run shows, such as pl_weight=0 or generator.style_block='\"pixel_instance\"'.",
)
@_output("--tick", type=float, metavar="KIMG", help="Status line and statistics after so many kimg.  [default: 4]")
@_output("--snap", type=int, metavar="TICKS", help="Checkpoint and pictures after so many ticks.  [default: 50]")
@_output("--keep", type=int, metavar="N", help="Checkpoints to keep; 0 keeps all.  [default: 10]")
@_output(
    "--metrics",
    metavar="NAMES",
    help="Measured after each checkpoint, such as fid50k_full,pr50k3_full, or none.  [default: fid_quick]",
)
@_output(
    "--extractor",
    metavar="NAME",
    help="Feature network of the metrics; see `styleforge evaluate --help`.  [default: auto]",
)
@_output("--desc", metavar="TEXT", help="Appended to the run directory's name.")
@_output("--wandb", metavar="PROJECT", help="Log to Weights & Biases, too.")
@click.pass_context
def train(ctx: click.Context, **flags: Any) -> None:
    """Train a generator on a folder of pictures.

    A run writes checkpoints, grids of pictures, stats.jsonl and log.txt into its own directory, survives being
    killed, and goes on with --resume.
    """
    if flags.pop("fp32"):
        flags["precision"] = "fp32"
    flags["auto_batch"] = flags["batch_gpu"] == "auto"
    if flags["auto_batch"]:
        flags["batch_gpu"] = None
    if flags["resume"] is not None:
        result: TrainResult | None = _resume(ctx, flags)
    else:
        result = _start(flags)
    if result is not None and result.signum is not None:
        sys.exit(128 + result.signum)


def _resume(ctx: click.Context, flags: dict[str, Any]) -> TrainResult:
    from styleforge.training import TrainConfig, resume
    from styleforge.training.run_dir import read_options

    given = [name for name in flags if ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE]
    fixed = [name for name in given if name not in (*_MAY_CHANGE, "resume", "wandb", "minutes")]
    if fixed:
        flag = "--" + fixed[0].replace("_", "-").replace("assignments", "set")
        allowed = ", ".join("--" + name.replace("_", "-") for name in _MAY_CHANGE)
        raise click.UsageError(f"--resume keeps a run's settings: got {flag}, expected none but {allowed}.")
    changes = {_FIELDS[name]: flags[name] for name in _MAY_CHANGE if name in _FIELDS and flags[name] is not None}
    if flags["metrics"] is not None:
        changes["metrics"] = _metric_names(flags["metrics"])
    config = TrainConfig.from_dict(read_options(Path(flags["resume"])).to_dict() | changes)
    return resume(
        flags["resume"],
        measuring(config),
        changes=changes,
        wandb_project=flags["wandb"],
        minutes=flags["minutes"],
        auto_batch=flags["auto_batch"],
    )


def _start(flags: dict[str, Any]) -> TrainResult | None:
    from styleforge.convert import load_any
    from styleforge.training import train as start

    if flags["data"] is None:
        raise click.UsageError("got neither --data nor --resume, expected one: a dataset, or a run to go on with.")
    config = build_config(flags)
    if flags["dry_run"]:
        if flags["auto_batch"]:
            click.echo("--batch-gpu auto: what fits is found out when training starts.", err=True)
        click.echo(json.dumps(config.to_dict(), indent=2))
        return None
    init_from = None if flags["init_from"] is None else load_any(flags["init_from"])
    return start(
        config,
        measuring(config),
        init_from=init_from,
        wandb_project=flags["wandb"],
        minutes=flags["minutes"],
        auto_batch=flags["auto_batch"],
    )


def _metric_names(text: str | None) -> str:
    """What --metrics says, checked: names with commas between, empty for none."""
    from styleforge.metrics.recipes import parse_list

    if text == "none":
        return ""
    return ",".join(recipe.name for recipe in parse_list(text or "fid_quick"))


def measuring(config: TrainConfig) -> OnSnapshot | None:
    """What measures a run's snapshots with the metrics of its config; None for no metrics.

    Whatever can be wrong with the names, the extractor or the number of pictures is found now, before any training. As
    in the official release all pictures of the dataset are real ones here, also with --subset, and mirror images
    where training mirrors, but not in metrics whose names end in ``_full``. Path lengths wait until a progressive
    network has grown.

    Raises:
        ValueError: An unknown metric or extractor, or too few pictures.
        OSError: The extractor's weights or the dataset cannot be read.
    """
    from styleforge import dist
    from styleforge.data import ImageDataset
    from styleforge.metrics import Tools, measure, require_enough
    from styleforge.metrics.pictures import GeneratedPictures
    from styleforge.metrics.recipes import parse_list
    from styleforge.metrics.records import record
    from styleforge.networks import Generator
    from styleforge.training.schedule import lod_at

    if not config.metrics:
        return None
    if config.extractor == "discriminator":
        raise ValueError(
            "--extractor: got discriminator, which changes from one snapshot to the next, expected one that stays the "
            "same, such as random-vgg; `styleforge evaluate` can measure with it"
        )
    recipes = parse_list(config.metrics)
    try:
        dataset = ImageDataset(config.data, use_labels=config.cond, mirror=config.mirror)
    except (ValueError, OSError):
        return None  # training opens it next, and says better what is wrong with it
    try:
        for recipe in recipes:
            require_enough(recipe, dataset)
    except ValueError as error:
        raise ValueError(f"{error}, or leave it out (--metrics none)") from error
    tools = Tools(extractor=config.extractor, device=dist.pick_device(config.device))
    tools.load([recipe.kind for recipe in recipes], Generator(config.generator))

    def on_snapshot(G_ema: Generator, cur_nimg: int) -> list[dict[str, Any]]:
        lod = lod_at(config, cur_nimg)
        names = [recipe.name for recipe in recipes if recipe.kind != "ppl" or lod == 0]
        if not names:
            return []
        pictures = GeneratedPictures(G_ema, seed=0, labels=dataset, lod=lod)
        return [record(measurement, None) for measurement in measure(pictures, names, tools)]

    return on_snapshot


def build_config(flags: dict[str, Any]) -> TrainConfig:
    """The config that the flags ask for, with size, channels and labels read from the dataset.

    Raises:
        ValueError: A flag's value does not fit, or the dataset cannot be used.
    """
    from styleforge.data import ImageDataset
    from styleforge.training import TrainConfig, training_preset

    dataset = ImageDataset(flags["data"], use_labels=flags["cond"])
    if not flags["cond"] and dataset.has_labels:
        click.echo("The dataset has labels; without --cond they are not used.", err=True)
    config = training_preset(
        flags["cfg"],
        dataset.resolution,
        img_channels=dataset.img_channels,
        c_dim=dataset.c_dim,
        device=flags["device"] or "auto",
        num_processes=int(os.environ.get("WORLD_SIZE", "1")),
        batch=flags["batch"],
        channel_base=flags["cbase"],
        channel_max=flags["cmax"],
    )
    values = config.to_dict() | {"cond": flags["cond"]}
    given = {flag: flags[flag] for flag in _FIELDS if flags[flag] is not None and flags[flag] is not False}
    values |= {_FIELDS[flag]: value for flag, value in given.items()}
    values["metrics"] = _metric_names(flags["metrics"])
    if flags["map_depth"] is not None:
        values["generator"]["mapping_layers"] = flags["map_depth"]
    if flags["mbstd_group"] is not None:
        values["discriminator"]["mbstd_group"] = flags["mbstd_group"]
    for assignment in flags["assignments"]:
        _assign(values, assignment)
    return TrainConfig.from_dict(values)


def _assign(values: dict[str, Any], assignment: str) -> None:
    """Sets one field from ``FIELD=JSON``; a word that is no JSON is taken as text."""
    path, equals, text = assignment.partition("=")
    *parents, field = path.split(".")
    for parent in parents:
        child = values.get(parent)
        values = child if isinstance(child, dict) else {}
    if not equals or field not in values:
        known = ", ".join(values)
        raise ValueError(f"--set: got {assignment!r}, expected FIELD=JSON with a field of {known or '--dry-run'}")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    if isinstance(values[field], bool) and not isinstance(value, bool):
        raise ValueError(f"--set: got {assignment!r}, expected {path}=true or {path}=false")
    values[field] = value
