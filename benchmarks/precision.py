"""Whether training in bf16 goes as in float32: `python benchmarks/precision.py --outdir out`.

Trains one small network several times, from several seeds, in float32 and in bf16, on the same portraits. The same seed
means the same weights, pictures and latents, so that what differs within a seed is rounding and what grows of it. For
each loss it prints the root mean square of (bf16 - float32) at the same seed, over windows of steps, beside that of the
difference between two float32 runs of different seeds, and draws all curves.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

WINDOW = 10
"""Steps that a point of a curve is the mean of."""
LOSSES = {
    "Loss/G/loss": "Generator's loss",
    "Loss/D/loss": "Discriminator's loss",
    "Loss/r1_penalty": "R1 penalty",
    "Loss/pl_lengths": "Path lengths",
}


def losses(precision: str, seed: int, data: Path, outdir: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Trains; the mean of each loss over every window, where it was taken at all."""
    from styleforge.training import train, training_preset

    config = training_preset(
        "config-f",
        options.resolution,
        device=options.device,
        batch=options.batch,
        channel_base=options.cbase,
        channel_max=options.cmax,
    )
    kimg_per_tick = WINDOW * options.batch / 1000
    config = dataclasses.replace(
        config,
        data=str(data),
        outdir=str(outdir / f"{precision}-{seed}"),
        gamma=options.gamma,
        r1_interval=WINDOW,  # so that each window has each penalty
        pl_interval=WINDOW // 2,
        total_kimg=options.steps * options.batch / 1000 + 0.5 * options.batch / 1000,
        kimg_per_tick=kimg_per_tick,
        snapshot_ticks=10**6,
        precision=precision,
        seed=seed,
        workers=0,
        device=options.device,
        metrics="",
    )
    start_time = time.perf_counter()
    run_dir = train(config, quiet=True).run_dir
    print(f"{precision} seed {seed}: {time.perf_counter() - start_time:.0f} s", flush=True)
    lines = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["Progress/tick"]["mean"] > 1]  # the first tick is one step
    return {name: [line[name]["mean"] for line in lines if name in line] for name in LOSSES}


def rms(differences: list[np.ndarray]) -> float:
    """Root mean square over all windows and pairs."""
    return float(np.sqrt(np.mean(np.square(differences))))


def main() -> None:
    """Trains, compares, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--cbase", type=int, default=512)
    parser.add_argument("--cmax", type=int, default=32)
    parser.add_argument("--gamma", type=float, default=0.1)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    import torch

    from styleforge import plots
    from styleforge.data.portraits import write_portraits
    from styleforge.memory import keep_freed_memory

    keep_freed_memory()
    options.outdir.mkdir(parents=True, exist_ok=True)
    curves: dict[str, list[dict[str, list[float]]]] = {"fp32": [], "bf16": []}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "portraits.zip"
        write_portraits(data, resolution=options.resolution, num=1000)
        for seed, precision in itertools.product(range(options.seeds), curves):
            curves[precision].append(losses(precision, seed, data, Path(folder), options))

    result: dict[str, object] = {
        "machine": f"torch {torch.__version__}, {torch.get_num_threads()} threads, device {options.device}",
        "settings": {name: value for name, value in vars(options).items() if name != "outdir"},
    }
    for name in LOSSES:
        single, half = ([np.array(run[name]) for run in curves[precision]] for precision in curves)
        result[name] = {
            "mean": float(np.mean(single)),
            "bf16_against_float32": rms([b - a for a, b in zip(single, half, strict=True)]),
            "float32_between_seeds": rms([b - a for a, b in itertools.combinations(single, 2)]),
        }
    text = json.dumps(result, indent=2)
    print(text)
    (options.outdir / "precision.json").write_text(text + "\n", encoding="utf-8")
    with plots.figure(options.outdir / "precision.png", 2, 2, size=(9, 5.6), dpi=90) as axes:
        for ax, (name, title) in zip(axes, LOSSES.items(), strict=True):
            ax.set(title=title, xlabel="steps")
            for precision, style in (("fp32", "-"), ("bf16", "--")):
                for seed, run in enumerate(curves[precision]):
                    points = (np.arange(len(run[name])) + 1) * WINDOW
                    label = f"{'float32' if precision == 'fp32' else 'bf16'}, seed {seed}"
                    ax.plot(points, run[name], style, color=plots.COLOURS[seed], linewidth=1.2, label=label)
        axes[0].legend(fontsize=7, ncols=2)


if __name__ == "__main__":
    main()
