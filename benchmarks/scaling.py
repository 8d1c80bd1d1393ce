"""What training costs on many GPUs: a model, and a measurement with 1 and 2 processes on this machine.

    python benchmarks/scaling.py --seconds-per-image 0.0092 0.026 0.043 --bandwidth 25
    python benchmarks/scaling.py --measure

The first prints tables of Markdown for config F at 64, 256 and 1024 pixels; its inputs are the flags, and what a flag
does not say is an assumption. The second trains a small network through torchrun on gloo, with one thread a process
and the same batch in all, and prints the seconds of a step. `docs/scaling.md` has the formulas.
"""
# Symbols: n processes, b images of one process per step.

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from styleforge.data.portraits import write_portraits
from styleforge.dist import gradient_buckets
from styleforge.networks import Discriminator, Generator, network_preset

RESOLUTIONS = (64, 256, 1024)
PL_INTERVAL, R1_INTERVAL = 8, 16
"""Of config F: every so many steps the path length penalty and R1 have an optimizer step of their own."""
BYTES = 4
"""Of a gradient."""
BACKWARD_SHARE = 0.5
"""Of the compute: while this lasts, gradients can be sent that are there already."""


@dataclass(kw_only=True, slots=True)
class Machine:
    """What a step depends on besides the network."""

    bandwidth: float
    """Bytes per second that one GPU can send, and receive, to other machines."""
    bandwidth_inside: float
    """The same between GPUs of one machine."""
    latency: float
    """Seconds of one message between GPUs."""
    latency_cpu: float
    """The same between CPUs, through gloo."""
    gpus_per_machine: int
    """Processes that share a machine's disk and cores."""
    images_per_reader: float
    """Pictures per second that one reading process decodes."""


@dataclass(kw_only=True, slots=True)
class Step:
    """What one step takes, in seconds, and what follows."""

    compute: float
    """Forward and backward passes, with the regularisers' share."""
    reduce: float
    """All-reduce of gradients and of small numbers."""
    waiting: float
    """What of it no backward pass hides."""
    images_per_sec: float
    """All processes together."""
    efficiency: float
    """The share of the time in which the process computes."""
    images_per_machine: float
    """What a machine's disk and readers must give per second."""
    readers: int
    """Reading processes that each GPU needs."""


@dataclass(kw_only=True, slots=True)
class Sent:
    """What the phases of a network send."""

    parameters: int
    """Numbers of them; gradients are float32 at any precision of the activations."""
    buckets: int
    """Pieces that they go in."""
    last_bytes: int
    """Of the last piece, which no backward pass hides."""
    per_step: float
    """The mean number of the network's phases in a step: the regulariser has one of its own."""


def gradients(resolution: int) -> tuple[Sent, Sent]:
    """Of config F's G and D."""
    with torch.device("meta"):
        g_config, d_config = network_preset("config-f", resolution)
        networks = Generator(g_config), Discriminator(d_config)
    sent = []
    for network, interval in zip(networks, (PL_INTERVAL, R1_INTERVAL), strict=True):
        buckets = list(gradient_buckets(list(network.parameters())))
        num = sum(p.numel() for p in network.parameters())
        last = sum(p.nbytes for p in buckets[-1])
        sent.append(Sent(parameters=num, buckets=len(buckets), last_bytes=last, per_step=1 + 1 / interval))
    return sent[0], sent[1]


def bytes_per_step(resolution: int) -> float:
    """Gradients that are averaged in a mean step."""
    return sum(BYTES * sent.parameters * sent.per_step for sent in gradients(resolution))


def step(machine: Machine, resolution: int, n: int, b: int, sec_per_image: float) -> Step:
    """The model: compute, beside which gradients are averaged, then the last bucket of each pass and small numbers."""
    networks = gradients(resolution)
    bandwidth = machine.bandwidth if n > machine.gpus_per_machine else machine.bandwidth_inside
    sec_per_byte = 2 * (n - 1) / n / bandwidth
    hops = 2 * math.ceil(math.log2(n))
    large = bytes_per_step(resolution) * sec_per_byte
    large += sum(sent.buckets * sent.per_step for sent in networks) * hops * machine.latency
    last = sum((sent.last_bytes * sec_per_byte + hops * machine.latency) * sent.per_step for sent in networks)
    small = (1 + 1 / PL_INTERVAL) * hops * machine.latency  # the mean w, the mean path length
    small += hops * machine.latency_cpu  # whether any process stops
    compute = b * sec_per_image
    waiting = max(large - BACKWARD_SHARE * compute, last) + small
    images_per_sec = n * b / (compute + waiting)
    return Step(
        compute=compute,
        reduce=large + small,
        waiting=waiting,
        images_per_sec=images_per_sec,
        efficiency=compute / (compute + waiting),
        images_per_machine=images_per_sec / n * min(n, machine.gpus_per_machine),
        readers=math.ceil(images_per_sec / n / machine.images_per_reader),
    )


def print_model(options: argparse.Namespace) -> None:
    """Tables for each resolution and number of GPUs."""
    machine = Machine(
        bandwidth=options.bandwidth * 1e9,
        bandwidth_inside=options.bandwidth_inside * 1e9,
        latency=options.latency,
        latency_cpu=options.latency_cpu,
        gpus_per_machine=options.gpus_per_machine,
        images_per_reader=1.0,
    )
    for resolution, seconds, rate in zip(
        RESOLUTIONS, options.seconds_per_image, options.images_per_reader, strict=True
    ):
        machine.images_per_reader = rate
        g, d = gradients(resolution)
        print(
            f"\nConfig F at {resolution}²: G {g.parameters:,}, D {d.parameters:,} parameters, "
            f"{bytes_per_step(resolution) / 1e6:.0f} MB of gradients a step in {g.buckets} and {d.buckets} buckets; "
            f"{seconds:g} s per image and GPU, {options.bandwidth_inside:g} GB/s in a machine and "
            f"{options.bandwidth:g} outside, {options.latency:g} s latency, {options.latency_cpu:g} s between CPUs, "
            f"{rate:g} images/s per reader\n"
        )
        print(
            "| GPUs | images per GPU | batch | compute ms | all-reduce ms | waiting ms | step ms | images/s | "
            "computing | images/s per machine | readers per GPU |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        for n in options.gpus:
            for b in options.batch_per_gpu:
                made = step(machine, resolution, n, b, seconds)
                in_ms = (made.compute, made.reduce, made.waiting, made.compute + made.waiting)
                print(
                    f"| {n} | {b} | {n * b} | {' | '.join(f'{1e3 * x:.1f}' for x in in_ms)} | "
                    f"{made.images_per_sec:,.0f} | {made.efficiency:.0%} | {made.images_per_machine:,.0f} | "
                    f"{made.readers} |"
                )


def measure(options: argparse.Namespace) -> None:
    """Trains with 1 and 2 processes, the same batch in all, and prints the seconds of a step as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "portraits.zip"
        write_portraits(data, resolution=options.resolution, num=256)
        seconds = {n: sec_per_step(options, data, n, Path(folder) / f"runs{n}") for n in (1, 2)}
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, gloo, 1 thread a process",
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "resolution": options.resolution,
        "batch": options.batch,
        "cbase": options.cbase,
        "cmax": options.cmax,
        "sec_per_step": {n: round(statistics.median(ticks), 4) for n, ticks in seconds.items()},
        "ticks": {n: [round(tick, 4) for tick in ticks] for n, ticks in seconds.items()},
        "speedup": round(statistics.median(seconds[1]) / statistics.median(seconds[2]), 3),
    }
    print(json.dumps(result, indent=2))


def sec_per_step(options: argparse.Namespace, data: Path, n: int, outdir: Path) -> list[float]:
    """Mean seconds of a step in each tick of 16 steps, which has all phases in their due share, but for the first."""
    steps_per_tick = R1_INTERVAL
    kimg_per_tick = steps_per_tick * options.batch / 1000
    arguments = {
        "--data": data,
        "--outdir": outdir,
        "--batch": options.batch,
        "--cbase": options.cbase,
        "--cmax": options.cmax,
        "--tick": kimg_per_tick,
        "--kimg": kimg_per_tick * (options.ticks + 1),
        "--snap": 10**6,
        "--metrics": "none",
        "--workers": 0,
        "--device": "cpu",
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    command = ["-m", "styleforge.cli.main", "train", *(str(word) for pair in arguments.items() for word in pair)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *command], env=environment, check=True, stdout=subprocess.DEVNULL)
    (log,) = outdir.glob("*/stats.jsonl")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    full = [line for line in lines if line["Progress/tick"]["mean"] > 1]  # the first is one step, the second warms up
    return [line["Timing/sec_per_kimg"]["mean"] * options.batch / 1000 for line in full]


def main() -> None:
    """Runs the model or the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--batch-per-gpu", type=int, nargs="+", default=[4, 32], help="images of one GPU per step")
    parser.add_argument(
        "--seconds-per-image", type=float, nargs=3, default=[0.0092, 0.026, 0.043], metavar=("S64", "S256", "S1024"),
        help="1 / train_img_per_sec of `styleforge bench` on one GPU; the defaults are assumptions",
    )  # fmt: skip
    parser.add_argument("--bandwidth", type=float, default=25.0, help="GB/s of one GPU to other machines")
    parser.add_argument("--bandwidth-inside", type=float, default=200.0, help="the same between GPUs of one machine")
    parser.add_argument("--latency", type=float, default=10e-6, help="seconds of one message")
    parser.add_argument("--latency-cpu", type=float, default=100e-6, help="seconds of one message between CPUs")
    parser.add_argument("--gpus-per-machine", type=int, default=8)
    parser.add_argument(
        "--images-per-reader", type=float, nargs=3, default=[1200, 380, 23], metavar=("R64", "R256", "R1024"),
        help="images/s of one reading process; the defaults are assumptions",
    )  # fmt: skip
    parser.add_argument("--measure", action="store_true", help="time 1 and 2 processes here instead")
    parser.add_argument("--resolution", type=int, default=32, help="of --measure")
    parser.add_argument("--batch", type=int, default=16, help="of --measure, all processes together")
    parser.add_argument("--cbase", type=int, default=2048, help="of --measure")
    parser.add_argument("--cmax", type=int, default=64, help="of --measure")
    parser.add_argument("--ticks", type=int, default=5, help="of --measure, each of 16 steps")
    options = parser.parse_args()
    if options.measure:
        measure(options)
    else:
        print_model(options)


if __name__ == "__main__":
    main()
