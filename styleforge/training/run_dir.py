"""The run directory: its name, its files, its pictures."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from styleforge import checkpoint, images
from styleforge.checkpoint import SUFFIX, Checkpoint
from styleforge.data import ImageDataset
from styleforge.data.sources import dataset_name
from styleforge.files import PART, atomic_path
from styleforge.networks import Generator
from styleforge.training.config import TrainConfig

OPTIONS = "training_options.json"


def create(config: TrainConfig, num_processes: int) -> Path:
    """Makes a new run directory, ``00000-<cfg>-<data>-gpus1-batch32-gamma10[-desc]``, and writes the options.

    Returns:
        Its path.

    Raises:
        OSError: It cannot be made.
    """
    outdir = Path(config.outdir)
    parts = [
        config.name,
        dataset_name(config.data),
        f"gpus{num_processes}",
        f"batch{config.batch}",
        f"gamma{config.gamma:g}",
    ]
    name = re.sub(r"[\\/:\s]+", "-", "-".join(parts + ([config.desc] if config.desc else [])))
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        numbers = [int(match[1]) for path in outdir.iterdir() if (match := re.match(r"^(\d{5})-", path.name))]
        for number in itertools.count(max(numbers, default=-1) + 1):
            run_dir = outdir / f"{number:05d}-{name}"
            with contextlib.suppress(FileExistsError):  # another run that started at the same moment
                run_dir.mkdir()
                break
    except OSError as error:
        raise OSError(
            f"{outdir}: no run directory could be made there ({error.strerror}); choose another place (--outdir)"
        ) from error
    write_options(config, run_dir)
    return run_dir


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keeps other processes from training in the same directory; the system ends the lock with the process.

    Where the system or the disk has no such locks, nothing is kept.

    Raises:
        OSError: Another process trains there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (run_dir / ".lock").open("a") as file:
        try:
            fcntl.lockf(
                file, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # unlike flock's, not inherited by processes that read data
        except (BlockingIOError, PermissionError) as error:
            raise OSError(
                f"{run_dir}: got a directory in which another process is training, expected one at rest; wait for it, "
                "or stop it"
            ) from error
        except OSError:  # some network disks
            pass
        yield


def write_options(config: TrainConfig, run_dir: Path) -> None:
    """Writes ``training_options.json``."""
    with atomic_path(run_dir / OPTIONS) as temporary:
        temporary.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")


def read_options(run_dir: Path) -> TrainConfig:
    """Reads ``training_options.json``.

    Raises:
        ValueError: It is damaged or of another version.
        OSError: The folder is no run directory.
    """
    path = run_dir / OPTIONS
    if not path.exists():
        raise FileNotFoundError(
            f"{run_dir}: there is no {OPTIONS}, expected a run directory of styleforge (--resume); to start from the "
            "weights of a checkpoint use --init-from"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text
        raise ValueError(f"{path}: got text that is not JSON ({error}), expected training options") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: got a JSON {type(values).__name__}, expected an object of training options")
    try:
        return TrainConfig.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def snapshots(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first."""
    return sorted(run_dir.glob(f"network-snapshot-*{SUFFIX}"))


def last_good(run_dir: Path, say: Callable[[str], None]) -> tuple[Path, Checkpoint] | None:
    """The newest checkpoint that can be read; damaged ones are named and passed over. None if there is none.

    Raises:
        ValueError: There are checkpoints, but all are damaged.
    """
    paths = snapshots(run_dir)
    for path in reversed(paths):
        try:
            return path, checkpoint.load(path)
        except ValueError as error:
            say(f"passed over: {error}")
    if paths:
        raise ValueError(
            f"{run_dir}: got {len(paths)} checkpoints that are all damaged, expected a good one; start a new run"
        )
    return None


def prune(run_dir: Path, keep: int, latest: Path) -> None:
    """Removes all but the newest ``keep`` checkpoints, and what a killed process left half-written.

    Args:
        run_dir: The run directory.
        keep: How many to keep; 0 keeps all.
        latest: The checkpoint just written. Any beyond it are damaged ones that the run has passed over.
    """
    good = [path for path in snapshots(run_dir) if path <= latest]
    for path in set(snapshots(run_dir)) - set(good[-keep:]):
        path.unlink(missing_ok=True)
    for path in run_dir.glob(f".*{PART}*"):
        path.unlink(missing_ok=True)


def free_bytes(run_dir: Path) -> int:
    """Free space on the run directory's disk."""
    return shutil.disk_usage(run_dir).free


def grid_shape(size: tuple[int, int]) -> tuple[int, int]:
    """(columns, rows) of the sample grids: at most 1024 pixels wide and 768 high, 4 to 8 columns."""
    height, width = size
    columns = min(max(1024 // width, 4), 8)
    return columns, min(max(768 // height, 2), 6)


class SampleGrid:
    """The same latents and labels, drawn again and again as training goes on.

    Args:
        dataset: Where the real pictures and labels come from.
        G: The generator, for its shapes.
        seed: Chooses pictures and latents.
        cond: Whether labels are used.
    """

    def __init__(self, dataset: ImageDataset, G: Generator, *, seed: int, cond: bool) -> None:
        self.columns, rows = grid_shape(G.config.size)
        num = self.columns * rows
        random = np.random.RandomState(seed)
        indices = random.permutation(len(dataset))[:num]
        pictures, labels = zip(*(dataset[int(i)] for i in indices), strict=True)
        self.reals: Tensor = torch.stack(pictures)
        self.z = torch.from_numpy(random.randn(len(indices), G.z_dim)).float()
        self.c = torch.stack(labels) if cond else None

    def save_reals(self, path: Path) -> None:
        """Writes the real pictures."""
        images.save(images.grid(self.reals, self.columns), path)

    @torch.no_grad()
    def save_fakes(self, G: Generator, path: Path, lod: float, batch: int = 16) -> None:
        """Writes generated pictures, with fixed noise."""
        device = G.w_avg.device
        parts = []
        for i in range(0, len(self.z), batch):
            c = None if self.c is None else self.c[i : i + batch].to(device)
            parts.append(images.to_uint8(G(self.z[i : i + batch].to(device), c, noise_mode="const", lod=lod)).cpu())
        images.save(images.grid(torch.cat(parts), self.columns), path)
