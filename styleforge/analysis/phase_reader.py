"""A small network that reads where head, eyes, mouth and teeth of a portrait look, each on its own.

It learns on portraits whose eyes, mouth and teeth do not follow the head, so that it can only tell where they look by
looking at them: on faithful portraits it might as well read everything off the outline of the face.
"""
# Shapes: N pictures, H W their size.

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from styleforge.analysis.factor_reader import (
    FIRST_SEED,
    ReaderConfig,
    ReaderNetwork,
    apply_network,
    deviation,
    new_network,
    save_reader,
    train_network,
)
from styleforge.data.portraits import FACTORS, LOOSE, draw, sample_factors

FORMAT = "styleforge phase reader 1"
"""Of the files; counted up when the network or its training changes, so that older files are made anew."""
PARTS = ("head", *LOOSE)
"""What is read: yaw in degrees of each."""
TEETH_OFFSET = 15.0
"""Degrees that teeth are turned against the mouth at most: further out, it hides them."""

_INDEX = {factor.name: i for i, factor in enumerate(FACTORS)}
_UNIT = deviation(FACTORS[_INDEX["yaw"]])


PLANTED = (1.0, 0.75, 0.5, 0.0)
"""Yaw of a part over yaw of the head, in the portraits on which the reader is measured; 1 is faithful."""


@dataclass(frozen=True, slots=True)
class Poses:
    """Yaw of the parts of some portraits, true or read."""

    yaw: np.ndarray
    """[N, 4] float64: degrees, in the order of `PARTS`."""
    teeth: np.ndarray
    """[N] float64: how much of the teeth shows: openness of the mouth times the share that teeth fill, 0 to 1."""

    def __getitem__(self, chosen: np.ndarray) -> Poses:
        return Poses(self.yaw[chosen], self.teeth[chosen])


def loose_portraits(
    size: tuple[int, int],
    first: int,
    num: int,
    turn: Callable[[float, np.random.Generator], dict[str, float] | None],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Poses]:
    """Draws portraits whose parts look elsewhere than the head.

    Args:
        size: (height, width).
        first: Number of the first portrait; the same number gives the same one.
        num: How many.
        turn: Takes the head's yaw and random numbers, and gives the yaw of each part in `LOOSE`; None where all follow
            the head, as in the dataset.
        progress: Called with the number drawn and the total.

    Returns:
        Pictures [N, 3, H, W] uint8, and their true poses.
    """
    x, yaw, teeth = torch.empty(num, 3, *size, dtype=torch.uint8), np.empty((num, len(PARTS))), np.empty(num)
    for i in range(num):
        factors = sample_factors(first + i, FIRST_SEED)
        head = float(factors[_INDEX["yaw"]])
        loose = turn(head, np.random.default_rng([FIRST_SEED, first + i]))
        x[i] = torch.from_numpy(draw(factors, size, loose_yaw=loose)).permute(2, 0, 1)
        yaw[i] = [head, *((loose or {}).get(part, head) for part in LOOSE)]
        teeth[i] = factors[_INDEX["mouth_openness"]] * factors[_INDEX["teeth"]]
        if progress is not None:
            progress(i + 1, num)
    return x, Poses(yaw, teeth)


def turn_at_random(head: float, draws: np.random.Generator) -> dict[str, float] | None:
    """For training: parts that follow, follow nearly, or look anywhere, in about equal shares."""
    limit = FACTORS[_INDEX["yaw"]].high

    def part() -> float:
        near, anywhere = head + draws.uniform(-10, 10), draws.uniform(-limit, limit)
        return float(draws.choice([head, near, anywhere]))

    if draws.random() < 0.2:
        return None
    mouth = part()
    return {"eyes": part(), "mouth": mouth, "teeth": mouth + draws.uniform(-TEETH_OFFSET, TEETH_OFFSET)}


def turn_in_part(head: float, draws: np.random.Generator, *, share: float) -> dict[str, float] | None:
    """For measuring: eyes and mouth with its teeth that follow the head by a share of its yaw."""
    return None if share == 1 else dict.fromkeys(LOOSE, share * head)


@dataclass(kw_only=True, slots=True)
class PhaseReader:
    """A trained network; made by `train` or `train_cached`."""

    config: ReaderConfig
    """What it was made from."""
    network: ReaderNetwork
    """On the CPU."""
    held_out: list[tuple[Poses, Poses]]
    """True and read poses of portraits that it was not trained on, one pair for each of `PLANTED`."""

    def read(self, images_uint8: Tensor) -> Poses:
        """Reads poses off pictures [N, 3, H, W] uint8 RGB of the reader's size, or 2, 4, … times as large."""
        return _read(self.network, self.config.size, images_uint8)

    @classmethod
    def train(cls, config: ReaderConfig, *, progress: Callable[[int, int], None] | None = None) -> Self:
        """Draws portraits, and trains a reader on them; a few minutes on one core at 64².

        Args:
            config: What to make.
            progress: Called with the number done and the total: of portraits drawn, then of training steps.
        """
        num, first = config.num_portraits, config.seed << 32
        x, poses = loose_portraits(config.size, first, num, turn_at_random, progress)
        yaw, teeth = (torch.from_numpy(values).float() for values in (poses.yaw / _UNIT, poses.teeth))

        def loss(output: Tensor, chosen: Tensor) -> Tensor:
            errors = (output[:, : len(PARTS)] - yaw[chosen]).square()  # [n, 4]
            weights = torch.ones_like(errors)
            weights[:, PARTS.index("teeth")] = 4 * teeth[chosen]  # teeth that hardly show cannot be read
            return (errors * weights).mean(0).sum() + (output[:, len(PARTS)] - teeth[chosen]).square().mean()

        network = new_network(config, len(PARTS) + 1)
        train_network(network, x, loss, config, progress)
        held_out = []
        for planted in PLANTED:  # the same portraits each time, but for how the parts follow
            x, poses = loose_portraits(
                config.size, first + num, config.num_held_out // len(PLANTED), partial(turn_in_part, share=planted)
            )
            held_out.append((poses, _read(network, config.size, x)))
        return cls(config=config, network=network, held_out=held_out)

    @classmethod
    def train_cached(cls, config: ReaderConfig, *, progress: Callable[[int, int], None] | None = None) -> Self:
        """`train`, kept in the cache folder (see `styleforge.downloads.cache_dir`) for the next time."""
        from styleforge.downloads import cache_dir

        path = cache_dir() / "readers" / f"phase-{config.key(FORMAT)}.safetensors"
        with contextlib.suppress(OSError, ValueError):  # not there yet, or damaged: made anew
            return cls.load(path)
        reader = cls.train(config, progress=progress)
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the result
            reader.save(path)
        return reader

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file with JSON inside, atomically.

        Raises:
            OSError: It cannot be written; an older one of the same name stays as it was.
        """
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        poses = [poses for pair in self.held_out for poses in pair]
        tensors["yaw"] = torch.from_numpy(np.stack([one.yaw for one in poses]))  # [2 · planted, N, 4]
        tensors["teeth"] = torch.from_numpy(np.stack([one.teeth for one in poses]))
        save_reader(path, FORMAT, self.config, tensors)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            ValueError: The file is damaged or of another kind.
            OSError: There is no such file, or it cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: there is no such file, expected one written by PhaseReader.save")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
            values = json.loads(metadata["config"])
            config = ReaderConfig(**values | {"size": tuple(values["size"])})
            network = new_network(config, len(PARTS) + 1)
            yaw, teeth = (tensors.pop(name).numpy() for name in ("yaw", "teeth"))
            network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in tensors.items()})
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{path}: got a file that is damaged or of another kind ({' '.join(str(error).split())[:200]}), "
                "expected one written by PhaseReader.save; remove it, and it is made again"
            ) from error
        poses = [Poses(*pair) for pair in zip(yaw, teeth, strict=True)]
        held_out = list(zip(poses[::2], poses[1::2], strict=True))
        return cls(config=config, network=network.eval().requires_grad_(False), held_out=held_out)


def _read(network: ReaderNetwork, size: tuple[int, int], images_uint8: Tensor) -> Poses:
    """The body of `PhaseReader.read`."""
    outputs = apply_network(network, size, images_uint8).double().numpy()
    return Poses(outputs[:, : len(PARTS)] * _UNIT, outputs[:, len(PARTS)])
