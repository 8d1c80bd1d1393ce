"""Sessions of training that other processes run, and that end badly."""

import os
import signal
from pathlib import Path

import safetensors.torch
import torch

from styleforge import dist
from styleforge.training import probe, resume, train
from styleforge.training.loop import Loop


def run(config):
    """Starts the run, or goes on with the one that is there; quiet."""
    run_dirs = sorted(Path(config.outdir).glob("0*")) if Path(config.outdir).exists() else []
    if run_dirs and (run_dirs[-1] / "training_options.json").exists():
        return resume(run_dirs[-1], quiet=True)
    return train(config, quiet=True)


def choose(config, sizes):
    """What every rank chooses as ``--batch-gpu auto``, where each has memory for so many images; None for none."""

    def largest(*_):
        if sizes[dist.rank()] is None:
            raise MemoryError
        return probe.Choice(batch_gpu=sizes[dist.rank()], reason="")

    probe._largest_by_estimate = largest
    with dist.Group(torch.device("cpu")):
        return probe.choose_batch_gpu(config, torch.device("cpu")).batch_gpu


def run_and_say_when(connection, config):
    """As `run`; says when the first step is made, so that whoever kills this process hits the training."""
    step = Loop._step

    def note(self, *arguments, **keywords):
        step(self, *arguments, **keywords)
        if not connection.closed:
            connection.send("training")
            connection.close()

    Loop._step = note
    return run(config)


def die_while_saving(config, moment, number):
    """As `run`, but is killed at a moment of its n-th checkpoint."""
    save_file, move, saves = safetensors.torch.save_file, Path.replace, []

    def half(tensors, path, metadata=None):
        saves.append(1)
        save_file(tensors, path, metadata=metadata)
        if len(saves) == number and moment == "writing":
            with Path(path).open("r+b") as file:
                file.truncate(Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def moving(self, target):
        due = len(saves) == number and "network-snapshot" in self.name
        if due and moment == "before moving":
            os.kill(os.getpid(), signal.SIGKILL)
        move(self, target)
        if due and moment == "after moving":
            os.kill(os.getpid(), signal.SIGKILL)

    safetensors.torch.save_file, Path.replace = half, moving
    return run(config)


def stop_rank(rank, steps, config):
    """As `run`, but one rank gets SIGTERM in its n-th step."""
    step = Loop._step

    def note(self, *arguments, **keywords):
        step(self, *arguments, **keywords)
        if self.rank == rank and self.state.counters.batch_idx + 1 == steps:
            signal.raise_signal(signal.SIGTERM)

    Loop._step = note
    return run(config)


def run_out_of_memory(config):
    """As `run`, but memory runs out on every rank in the first step."""

    def fail(self, *arguments, **keywords):
        raise MemoryError

    Loop._step = fail
    return run(config)


def kill_rank(rank, steps, config):
    """As `run`, but one rank is killed in its n-th step."""
    step = Loop._step

    def note(self, *arguments, **keywords):
        if self.rank == rank and self.state.counters.batch_idx + 1 == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        step(self, *arguments, **keywords)

    Loop._step = note
    return run(config)
