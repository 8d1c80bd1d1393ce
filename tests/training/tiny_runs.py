"""Small runs for the tests: configs, pictures, and what makes two runs the same run."""

import dataclasses
import itertools
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from styleforge.checkpoint import SUFFIX
from styleforge.training import GrowingConfig, TrainConfig, train, training_preset

NUM_PICTURES, NUM_CLASSES = 23, 3


def write_pictures(path, size=16, channels=3):
    """A zip of random pictures with class labels."""
    rng = np.random.default_rng(0)
    names = [f"{i:02d}.png" for i in range(NUM_PICTURES)]
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            pixels = rng.integers(0, 256, (size, size, channels) if channels > 1 else (size, size), dtype=np.uint8)
            with archive.open(name, "w") as file:
                Image.fromarray(pixels).save(file, "png")
        labels = [[name, i % NUM_CLASSES] for i, name in enumerate(names)]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return str(path)


def narrow(config: TrainConfig) -> TrainConfig:
    """The same with 4 to 8 channels and short latents."""
    shared = {"channel_base": 128, "channel_max": 8, "mapping_layers": 2}
    generator = dataclasses.replace(config.generator, z_dim=8, w_dim=8, **shared)
    return dataclasses.replace(
        config, generator=generator, discriminator=dataclasses.replace(config.discriminator, **shared)
    )


def tiny_config(folder, preset="config-e", **changes) -> TrainConfig:
    """A preset at 16×16 with tiny networks: 8 images a step, a tick and a checkpoint every 5 steps, 12 steps."""
    size = changes.pop("size", 16)
    channels, c_dim = changes.pop("img_channels", 3), changes.pop("c_dim", 0)
    pictures = Path(folder, f"pictures{size}x{channels}.zip")
    if not pictures.exists():
        write_pictures(pictures, size, channels)
    config = training_preset(preset, size, img_channels=channels, c_dim=c_dim)
    defaults = {
        "data": str(pictures),
        "outdir": str(Path(folder, "runs")),
        "workers": 0,
        "batch": 8,
        "device": "cpu",
        "total_kimg": 0.096,
        "kimg_per_tick": 0.04,
        "snapshot_ticks": 1,
        "pl_interval": 4,
    }
    if config.r1_interval:
        defaults["r1_interval"] = 3
    return narrow(dataclasses.replace(config, **(defaults | changes)))


def growing_config(folder, preset="config-d", **changes) -> TrainConfig:
    """A preset that grows from 8² over 16² to 32² within 176 images; batches of 16, 8 and 4."""
    growing = GrowingConfig(
        start_resolution=8,
        train_kimg=0.032,
        fade_kimg=0.032,
        lr_by_resolution={32: 0.003},
        batch_factor_by_resolution={8: 4, 16: 2},
    )
    return tiny_config(folder, preset, **({"size": 32, "batch": 4, "total_kimg": 0.176, "growing": growing} | changes))


def snapshots(run_dir):
    return sorted(Path(run_dir).glob(f"network-snapshot-*{SUFFIX}"))


def read_snapshot(path):
    """(every tensor, every fact in the header that is no duration)."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["header"])
    del header["info"]["counters"]["train_sec"]
    for field in ("data", "outdir", "desc", "workers"):
        header["config"].pop(field)
    return load_file(path), header


def stats_without_times(run_dir):
    """The lines of ``stats.jsonl`` without what depends on the clock and the machine."""
    lines = [json.loads(line) for line in Path(run_dir, "stats.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if not key.startswith(("Timing/", "Resources/", "timestamp"))}
        for line in lines
    ]


def assert_same_snapshot(path, other):
    (tensors, header), (other_tensors, other_header) = read_snapshot(path), read_snapshot(other)
    assert header == other_header
    assert tensors.keys() == other_tensors.keys()
    different = [name for name in tensors if not torch.equal(tensors[name], other_tensors[name])]
    assert not different, different
    assert any(name.startswith("training.optimizer.G.") for name in tensors)
    assert any(name.startswith("training.optimizer.D.") for name in tensors)


def assert_same_run(run_dir, other, stats_tolerance=0.0):
    """Weights, average, optimizers, running means, counters and statistics are equal, bit for bit.

    Statistics that several processes have put together in the midst of a tick may differ in their last digit: the sums
    are then taken in another order.
    """
    assert_same_snapshot(snapshots(run_dir)[-1], snapshots(other)[-1])
    lines, expected = (flat_lines(stats_without_times(run)) for run in (run_dir, other))
    assert lines == [pytest.approx(line, rel=stats_tolerance, abs=stats_tolerance) for line in expected]


def flat_lines(lines):
    """Each line as one level: ``Loss/G/loss`` -> ``Loss/G/loss/mean`` and so on."""
    return [
        {
            f"{name}/{part}": number
            for name, value in line.items()
            for part, number in (value.items() if isinstance(value, dict) else [("", value)])
        }
        for line in lines
    ]


def take(stream, count):
    return list(itertools.islice(stream, count))


def step_gradients(config, steps=1):
    """Trains some steps; returns the gradients of every optimizer step, one tensor (or None) per parameter."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    gradients = []

    def keep(optimizer, arguments, keywords):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients.append([None if p.grad is None else p.grad.clone() for p in parameters])

    config = dataclasses.replace(config, total_kimg=steps * config.batch / 1000)
    handle = register_optimizer_step_pre_hook(keep)
    try:
        train(config, quiet=True)
    finally:
        handle.remove()
    return gradients


def assert_same_gradients(tensors, expected, tolerance=1e-5):
    """The relative error of all tensors together is in the tolerance; of each alone it is small."""
    assert [x is None for x in tensors] == [x is None for x in expected]
    pairs = [(x.double(), y.double()) for x, y in zip(tensors, expected, strict=True) if x is not None]
    squares = torch.tensor([[(x - y).square().sum(), y.square().sum()] for x, y in pairs])
    error, size = squares.sum(0).sqrt().tolist()
    assert error < tolerance * size
    rounding = 1e-4 * (squares[:, 1] / torch.tensor([y.numel() for _, y in pairs])).sqrt().max()
    for x, y in pairs:
        assert (x - y).norm() <= 100 * tolerance * y.norm() + rounding * y.numel() ** 0.5 / 100, (x, y)
