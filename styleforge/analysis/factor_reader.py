"""A small network that reads the factors of a portrait off the picture, trained on freshly drawn portraits.

It is a measuring instrument: the same numbers are read from drawn and from generated pictures, and those readings are
compared. How well it reads each factor is measured on portraits that it was not trained on, and kept with it.
"""
# Shapes: N batch, F factors, R continuous factors, O outputs of the network, H W size at which pictures are read.

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from styleforge import images
from styleforge.data.portraits import FACTORS, MIN_SIDE, Factor, draw, sample_factors
from styleforge.files import atomic_path

FORMAT = "styleforge factor reader 1"
"""Of the files; counted up when the network or its training changes, so that older files are made anew."""
LARGEST_SIDE = 127
"""Pictures whose shorter side is longer are averaged down by halves until it is not: 256² is read at 64²."""
FIRST_SEED = 0x5EED_0000_0000
"""Where the seeds of its portraits begin: far from those that people give to ``styleforge data demo``."""

CONTINUOUS = [i for i, factor in enumerate(FACTORS) if not factor.values]
CATEGORICAL = [i for i, factor in enumerate(FACTORS) if factor.values]
OUTPUTS = len(CONTINUOUS) + sum(len(FACTORS[i].values) for i in CATEGORICAL)
WIDTHS = (24, 48, 64, 96)
"""Channels of the convolutions."""


def middle(factor: Factor) -> float:
    """Mean of a continuous factor, which is uniform."""
    return (factor.low + factor.high) / 2


def deviation(factor: Factor) -> float:
    """Standard deviation of a continuous factor, which is uniform."""
    return (factor.high - factor.low) / math.sqrt(12)


def reading_size(size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) at which pictures of a size are read.

    Raises:
        ValueError: No portraits can be drawn at this size.
    """
    height, width = size
    if min(size) < MIN_SIDE:
        raise ValueError(
            f"resolution: got pictures of {width}×{height}, expected at least {MIN_SIDE} pixels on each side, as "
            "portraits have; take a larger network"
        )
    while min(height, width) > LARGEST_SIDE and height % 2 == width % 2 == 0:
        height, width = height // 2, width // 2
    return height, width


@dataclass(frozen=True, kw_only=True, slots=True)
class ReaderConfig:
    """What a reader depends on."""

    size: tuple[int, int] = (64, 64)
    """(height, width) at which it reads, as from `reading_size`."""
    seed: int = 0
    """Of its portraits, its first weights and its training."""
    num_portraits: int = 12_000
    """Portraits that it is trained on."""
    num_held_out: int = 1_500
    """Further portraits, on which it is measured and with which generated pictures are compared."""
    epochs: int = 8
    """How often it sees each portrait, every time with other noise, blur and tint."""
    batch: int = 64
    """Portraits per step."""
    learning_rate: float = 0.003
    """Highest one, of a single cycle."""

    def __post_init__(self) -> None:
        assert reading_size(self.size) == self.size
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed: got {self.seed}, expected a whole number from 0 to {2**32 - 1} (--seed)")

    def key(self, file_format: str = FORMAT) -> str:
        """A name for a reader's file: it changes with the format, the config, and what the drawer draws."""
        probe = hashlib.sha256(json.dumps([file_format, asdict(self)]).encode())
        probe.update(draw(sample_factors(0, FIRST_SEED), self.size).tobytes())
        return f"portraits-{self.size[1]}x{self.size[0]}-seed{self.seed}-{probe.hexdigest()[:24]}"


class ReaderNetwork(nn.Sequential):
    """Five layers, and two that see where things lie; [N, 3, H, W] in [-1, 1] -> [N, O].

    Outputs are the continuous factors in standard deviations, then the logits of each categorical one.

    Args:
        size: (height, width) of the pictures.
        outputs: O; another number for another meaning.
    """

    def __init__(self, size: tuple[int, int], outputs: int = OUTPUTS) -> None:
        sides = [side // 2 for side in size]
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]  # half the size at once: the first layer is the dearest
        channels = 12
        for i, width in enumerate(WIDTHS):
            stride = 2 if i > 0 and min(sides) >= 8 else 1
            sides = [-(-side // stride) for side in sides]
            layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers += [nn.Flatten(), nn.Linear(channels * sides[0] * sides[1], 128), nn.ReLU(), nn.Linear(128, outputs)]
        super().__init__(*layers)

    def split(self, output: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Outputs [N, O] as the continuous factors [N, R], and the logits [N, K] of each categorical one."""
        sizes = [len(FACTORS[i].values) for i in CATEGORICAL]
        continuous, *logits = output.split([len(CONTINUOUS), *sizes], dim=1)
        return continuous, logits


@dataclass(kw_only=True, slots=True)
class FactorReader:
    """A trained network, with portraits that it has not been trained on; made by `train` or `train_cached`."""

    config: ReaderConfig
    """What it was made from."""
    network: ReaderNetwork
    """On the CPU."""
    held_out: np.ndarray
    """[N, F] float64: the factors of the portraits that it was not trained on."""
    held_out_readings: np.ndarray
    """[N, F] float64: what it reads off them."""

    def read(self, images_uint8: Tensor) -> np.ndarray:
        """Reads the factors off pictures.

        Args:
            images_uint8: [N, 3, H, W] uint8 RGB; of the reader's size, or 2, 4, … times as large.

        Returns:
            [N, F] float64 in the order and units of `FACTORS`; of a categorical factor, the number of the likeliest
            value. A continuous one may lie a little outside its range.
        """
        return _read(self.network, self.config.size, images_uint8)

    def scores(self) -> np.ndarray:
        """How well each factor is read, [F]: the share of a constant guess's error that reading avoids.

        1 is perfect, 0 is no better than always guessing the mean or the most frequent value. It is R² for a
        continuous factor, and (accuracy - most frequent) / (1 - most frequent) for a categorical one.
        """
        errors = (self.held_out_readings - self.held_out) ** 2
        errors[:, CATEGORICAL] = self.held_out_readings[:, CATEGORICAL] != self.held_out[:, CATEGORICAL]
        guess = self.held_out.var(0)
        for i in CATEGORICAL:
            guess[i] = 1 - np.bincount(self.held_out[:, i].astype(int)).max() / len(self.held_out)
        return 1 - errors.mean(0) / guess.clip(1e-12)

    @classmethod
    def train(cls, config: ReaderConfig, *, progress: Callable[[int, int], None] | None = None) -> Self:
        """Draws portraits, and trains a reader on them.

        The same config gives the same reader on the same machine. At 64² it takes about four minutes on one core.

        Args:
            config: What to make.
            progress: Called with the number done and the total: of portraits drawn, then of training steps.
        """
        total = config.num_portraits + config.num_held_out
        x, factors = _draw_portraits(FIRST_SEED + config.seed, total, config.size, progress)
        seen, held_out = x[: config.num_portraits], x[config.num_portraits :]
        network = _train_network(config, seen, factors[: config.num_portraits], progress)
        return cls(
            config=config,
            network=network,
            held_out=factors[config.num_portraits :],
            held_out_readings=_read(network, config.size, held_out),
        )

    @classmethod
    def train_cached(cls, config: ReaderConfig, *, progress: Callable[[int, int], None] | None = None) -> Self:
        """`train`, kept in the cache folder (see `styleforge.downloads.cache_dir`) for the next time."""
        from styleforge.downloads import cache_dir

        path = cache_dir() / "readers" / f"{config.key()}.safetensors"
        with contextlib.suppress(OSError, ValueError):  # not there yet, or damaged: made anew
            return cls.load(path)
        reader = cls.train(config, progress=progress)
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the result
            reader.save(path)
        return reader

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file with JSON inside, atomically; nothing in it can execute code.

        Raises:
            OSError: It cannot be written; an older one of the same name stays as it was.
        """
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {name: torch.from_numpy(getattr(self, name)) for name in ("held_out", "held_out_readings")}
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
            raise FileNotFoundError(f"{path}: there is no such file, expected one written by FactorReader.save")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
            values = json.loads(metadata["config"])
            config = ReaderConfig(**values | {"size": tuple(values["size"])})
            held_out, readings = (tensors.pop(name).numpy() for name in ("held_out", "held_out_readings"))
            network = new_network(config)
            network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in tensors.items()})
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{path}: got a file that is damaged or of another kind ({' '.join(str(error).split())[:200]}), "
                "expected one written by FactorReader.save; remove it, and it is made again"
            ) from error
        return cls(config=config, network=network.eval(), held_out=held_out, held_out_readings=readings)


def _draw_portraits(
    seed: int, num: int, size: tuple[int, int], progress: Callable[[int, int], None] | None
) -> tuple[Tensor, np.ndarray]:
    """Portraits [N, 3, H, W] uint8, and their factors [N, F]."""
    factors = np.stack([sample_factors(i, seed) for i in range(num)])
    x = torch.empty(num, 3, *size, dtype=torch.uint8)
    for i in range(num):
        x[i] = torch.from_numpy(draw(factors[i], size)).permute(2, 0, 1)
        if progress is not None:
            progress(i + 1, num)
    return x, factors


def save_reader(path: str | Path, format_: str, config: ReaderConfig, tensors: Mapping[str, Tensor]) -> None:
    """Writes what a reader consists of into a safetensors file with JSON inside, atomically.

    Raises:
        OSError: It cannot be written; an older one of the same name stays as it was.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_path(path) as temporary:
            save_file(whole, temporary, metadata={"format": format_, "config": json.dumps(asdict(config))})
    except SafetensorError as error:  # wraps what the system says
        raise OSError(f"{path}: could not be written ({error}); is the disk full?") from error


def new_network(config: ReaderConfig, outputs: int = OUTPUTS) -> ReaderNetwork:
    """An untrained network, without touching the caller's random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return ReaderNetwork(config.size, outputs).to(memory_format=torch.channels_last)


def _train_network(
    config: ReaderConfig, x: Tensor, factors: np.ndarray, progress: Callable[[int, int], None] | None
) -> ReaderNetwork:
    """Trains a network on portraits [N, 3, H, W] and their factors [N, F]."""
    scale = [(middle(FACTORS[i]), deviation(FACTORS[i])) for i in CONTINUOUS]
    centre, unit = torch.tensor(scale, dtype=torch.float64).T  # [R] each
    targets = ((torch.from_numpy(factors[:, CONTINUOUS]) - centre) / unit).float()  # [N, R]
    classes = torch.from_numpy(factors[:, CATEGORICAL]).long()  # [N, F - R]

    network = new_network(config)

    def loss(output: Tensor, chosen: Tensor) -> Tensor:
        continuous, logits = network.split(output)
        total = (continuous - targets[chosen]).square().mean(0).sum()
        for part, wanted in zip(logits, classes[chosen].T, strict=True):
            total = total + F.cross_entropy(part, wanted)
        return total

    train_network(network, x, loss, config, progress)
    return network


def train_network(
    network: ReaderNetwork,
    x: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    config: ReaderConfig,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Trains a network on pictures, each time with other noise, blur and tint; its weights are fixed then.

    Args:
        network: What to train.
        x: Pictures [N, 3, H, W] uint8.
        loss: Takes outputs [n, O] and the numbers of their pictures [n].
        config: Epochs, batch, learning rate and seed.
        progress: Called with the number of steps done and the total.
    """
    draws = torch.Generator().manual_seed(config.seed)
    network.train()
    steps = config.epochs * -(-len(x) // config.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, steps, pct_start=0.1)
    for step, chosen in enumerate(_batches(len(x), config, draws)):
        img = _disturb(images.from_uint8(x[chosen]), draws).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        loss(network(img), chosen).backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    network.eval().requires_grad_(False)


def _batches(num: int, config: ReaderConfig, draws: torch.Generator) -> Iterator[Tensor]:
    """Numbers of the portraits of each step: all of them in each epoch, in another order."""
    for _ in range(config.epochs):
        yield from torch.randperm(num, generator=draws).split(config.batch)


def _disturb(img: Tensor, draws: torch.Generator) -> Tensor:
    """Tints, blurs and noise that leave the factors readable: generated pictures are less clean than drawn ones."""
    N = len(img)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(N, *shape, generator=draws)

    img = img * (0.95 + 0.1 * uniform(3, 1, 1)) + 0.1 * (uniform(3, 1, 1) - 0.5)
    blurred = F.avg_pool2d(F.pad(img, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    img = img.lerp(blurred, 0.8 * uniform(1, 1, 1))
    return img + 0.05 * uniform(1, 1, 1) * torch.randn(img.shape, generator=draws)


@torch.no_grad()
def apply_network(network: ReaderNetwork, size: tuple[int, int], images_uint8: Tensor, batch: int = 100) -> Tensor:
    """Outputs [N, O] of a network for pictures [N, 3, H, W] uint8 of its size, or 2, 4, … times as large."""
    _, C, H, W = images_uint8.shape
    assert C == 3 and reading_size((H, W)) == size, f"{tuple(images_uint8.shape)} for {size}"
    outputs = []
    for part in images_uint8.split(batch):
        img = F.avg_pool2d(images.from_uint8(part), H // size[0])  # [n, 3, h, w]
        outputs.append(network(img.contiguous(memory_format=torch.channels_last)))
    return torch.cat(outputs)


def _read(network: ReaderNetwork, size: tuple[int, int], images_uint8: Tensor) -> np.ndarray:
    """The body of `FactorReader.read`."""
    continuous, logits = network.split(apply_network(network, size, images_uint8))
    readings = np.empty((len(images_uint8), len(FACTORS)))
    for number, column in zip(CONTINUOUS, continuous.double().T, strict=True):
        readings[:, number] = middle(FACTORS[number]) + deviation(FACTORS[number]) * column.numpy()
    for number, part in zip(CATEGORICAL, logits, strict=True):
        readings[:, number] = part.argmax(1).numpy()
    return readings
