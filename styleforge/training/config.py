"""The config of a training run: one dataclass, stored in the run directory and in every checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from styleforge.networks import DiscriminatorConfig, GeneratorConfig

Precision = Literal["auto", "fp32", "bf16", "fp16"]

_FLAGS = {
    **{field: f"--{field}" for field in ("batch", "gamma", "keep", "precision", "seed", "subset", "workers")},
    "total_kimg": "--kimg",
    "batch_gpu": "--batch-gpu",
    "checkpoint_resolution": "--checkpoint-from",
    "g_lr": "--glr",
    "d_lr": "--dlr",
    "kimg_per_tick": "--tick",
    "snapshot_ticks": "--snap",
}
"""Flags that set a field; the other fields are set by ``--set``."""

_KINDS: dict[str, tuple[type, str]] = {
    "bool": (bool, "true or false"),
    "int": (numbers.Integral, "a whole number"),
    "float": (numbers.Real, "a number"),
    "str": (str, "text"),
}
"""What the fields of simple types take, and how to say so."""


@dataclass(kw_only=True, slots=True)
class GrowingConfig:
    """Progressive growing of configs A to D (Karras et al. 2020, Appendix B; Karras et al. 2019)."""

    start_resolution: int = 8
    """Nominal resolution at which training starts."""
    train_kimg: float = 600
    """Thousands of images at each resolution before the next one fades in."""
    fade_kimg: float = 600
    """Thousands of images over which a resolution fades in."""
    lr_by_resolution: dict[int, float] = dataclasses.field(
        default_factory=lambda: {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003}
    )
    """Learning rate of both networks at a nominal resolution; elsewhere ``g_lr`` and ``d_lr`` hold."""
    batch_factor_by_resolution: dict[int, int] = dataclasses.field(default_factory=lambda: {4: 16, 8: 8, 16: 4, 32: 2})
    """Multiple of ``batch`` at a nominal resolution; elsewhere 1."""

    def __post_init__(self) -> None:
        start = self.start_resolution
        if start < 4 or start & (start - 1):
            raise ValueError(f"growing.start_resolution: got {start!r}, expected 4, 8, 16 or another power of two")
        for field in ("train_kimg", "fade_kimg"):
            if not 0 <= getattr(self, field) < math.inf:
                raise ValueError(f"growing.{field}: got {getattr(self, field)!r}, expected 0 or more")
        if self.train_kimg + self.fade_kimg == 0:
            raise ValueError("growing.train_kimg: got 0 and a fade_kimg of 0, expected one of them above 0")
        for resolution, lr in self.lr_by_resolution.items():
            if not 0 < lr < math.inf:
                raise ValueError(f"growing.lr_by_resolution: got {lr!r} at {resolution}, expected a positive number")
        for resolution, factor in self.batch_factor_by_resolution.items():
            if not isinstance(factor, int) or factor < 1:
                raise ValueError(
                    f"growing.batch_factor_by_resolution: got {factor!r} at {resolution}, expected a whole number "
                    "from 1"
                )


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """Everything that decides what a training run does."""

    name: str
    """The preset's name, for the run directory."""
    data: str = ""
    """Dataset: a zip, a folder or an LMDB."""
    outdir: str = "runs"
    """Where run directories are made."""
    desc: str = ""
    """Appended to the run directory's name."""
    generator: GeneratorConfig
    """The generator."""
    discriminator: DiscriminatorConfig
    """The discriminator."""

    # What is seen.
    cond: bool = False
    """Whether labels are used."""
    mirror: bool = False
    """Whether every picture is also shown mirrored, which doubles the dataset."""
    subset: int | None = None
    """How many pictures are used; None for all."""
    cache: bool = False
    """Whether decoded pictures are kept in memory."""
    workers: int = 2
    """Processes that read pictures; 0 reads in the training process."""

    # How long and how wide.
    total_kimg: float = 25000
    """Training length in thousands of real images shown to the discriminator."""
    batch: int = 32
    """Images per step, over all processes."""
    batch_gpu: int | None = None
    """Images at a time in each process; None for its whole share. Less saves memory: gradients accumulate."""
    checkpoint_resolution: int | None = None
    """Blocks of this nominal resolution and above keep no activations for the backward pass but compute them again;
    None keeps all."""
    seed: int = 0
    """Initial weights, order of the pictures and all random numbers."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``mps``."""
    precision: Precision = "auto"
    """Float type of the features: ``auto`` is bf16 on CUDA and fp32 elsewhere."""

    # How it learns.
    g_lr: float = 0.002
    """Learning rate of the generator, before the lazy correction."""
    d_lr: float = 0.002
    """Learning rate of the discriminator, before the lazy correction."""
    betas: tuple[float, float] = (0.0, 0.99)
    """Adam's betas, before the lazy correction."""
    eps: float = 1e-8
    """Adam's epsilon."""
    gamma: float = 10.0
    """Weight of R1, which enters as gamma / 2."""
    r1_interval: int = 16
    """R1 is taken every so many steps, in a pass of its own; 0 adds it to every step's loss (configs A and B)."""
    pl_weight: float = 2.0
    """Weight of the path length penalty; 0 for none (configs A to C)."""
    pl_interval: int = 8
    """The path length penalty is taken every so many steps (8 in the paper, 4 in the official release)."""
    pl_batch_shrink: int = 2
    """The batch of the path length penalty is smaller by this factor."""
    pl_decay: float = 0.99
    """Decay of the running mean of path lengths."""
    style_mixing_prob: float = 0.9
    """Probability that a generated image in training mixes two w."""
    w_avg_decay: float = 0.995
    """Decay of the running mean of w."""
    ema_kimg: float = 10.0
    """Half-life of the averaged generator's weights in thousands of images."""
    ema_rampup: float | None = None
    """Limits the half-life to this share of the images seen so far; None for no ramp-up."""
    growing: GrowingConfig | None = None
    """Progressive growing; None for the full resolution from the start."""

    # What is written.
    kimg_per_tick: float = 4.0
    """A status line and a line of statistics after so many thousand images."""
    snapshot_ticks: int = 50
    """A checkpoint and a grid of pictures after so many ticks."""
    keep: int = 10
    """How many of the newest checkpoints are kept; 0 keeps all."""
    metrics: str = ""
    """Metrics that the command line measures after each checkpoint, with commas between; empty for none."""
    extractor: str = "auto"
    """The feature network that they are measured with."""

    def __post_init__(self) -> None:
        self._check_kinds()
        for field in (
            "total_kimg",
            "batch",
            "g_lr",
            "d_lr",
            "eps",
            "kimg_per_tick",
            "snapshot_ticks",
            "pl_batch_shrink",
        ):
            self._require(field, 0 < getattr(self, field) < math.inf, "a positive number")
        for field in ("gamma", "r1_interval", "pl_weight", "pl_interval", "workers", "keep", "ema_kimg"):
            self._require(field, 0 <= getattr(self, field) < math.inf, "0 or more")
        self._require("seed", 0 <= self.seed < 2**32, "a number from 0 to 4294967295")
        for field in ("batch_gpu", "checkpoint_resolution", "subset"):
            self._require(field, getattr(self, field) is None or getattr(self, field) >= 1, "1 or more")
        for field in ("style_mixing_prob", "pl_decay", "w_avg_decay"):
            self._require(field, 0 <= getattr(self, field) <= 1, "a number from 0 to 1")
        self._require("betas", all(0 <= beta < 1 for beta in self.betas), "two numbers from 0 to below 1")
        self._require("precision", self.precision in get_args(Precision), f"one of {', '.join(get_args(Precision))}")
        self._require("pl_interval", self.pl_interval > 0 or not self.pl_weight, "1 or more with a path length weight")
        G, D = self.generator, self.discriminator
        if (G.size, G.img_channels, G.c_dim) != (D.size, D.img_channels, D.c_dim):
            raise ValueError(
                "generator, discriminator: got different sizes, channels or labels, expected the same in both"
            )
        if (self.growing is not None) != G.progressive or G.progressive != D.progressive:
            raise ValueError(
                "growing: got a schedule for networks that do not grow, or none for some that do, expected a "
                "schedule and progressive=True in both networks, or neither"
            )

    def _check_kinds(self) -> None:
        """Refuses text for a number and the like, since JSON by hand may hold anything."""
        for field in dataclasses.fields(self):
            kind, _, optional = str(field.type).partition(" | ")
            value = getattr(self, field.name)
            if kind not in _KINDS or (optional and value is None):
                continue
            wanted, expected = _KINDS[kind]
            is_bool = isinstance(value, bool)  # which Python takes for a whole number
            self._require(field.name, isinstance(value, wanted) and is_bool == (kind == "bool"), expected)
            if kind in ("int", "float"):  # numpy's numbers become Python's, which JSON knows
                setattr(self, field.name, int(value) if isinstance(value, numbers.Integral) else float(value))

    def _require(self, field: str, holds: bool, expected: str) -> None:
        if not holds:
            flag = _FLAGS.get(field, f"--set {field}=…")
            raise ValueError(f"{field}: got {getattr(self, field)!r}, expected {expected} ({flag})")

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values |= {"generator": self.generator.to_dict(), "discriminator": self.discriminator.to_dict()}
        values["growing"] = None if self.growing is None else dataclasses.asdict(self.growing)
        values["betas"] = list(self.betas)
        copy: dict[str, Any] = json.loads(json.dumps(values))
        return copy

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Makes a config from `to_dict`'s result.

        Raises:
            ValueError: A field that this version does not know, or a value that does not fit.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        missing = {"name", "generator", "discriminator"} - set(values)
        if missing or set(values) - known:
            got = f"no field {min(missing)!r}" if missing else f"unknown field {min(set(values) - known)!r}"
            raise ValueError(f"training options: got {got}, expected those of this version; is the file newer?")
        fields = dict(values)
        try:
            fields["generator"] = GeneratorConfig.from_dict(fields["generator"])
            fields["discriminator"] = DiscriminatorConfig.from_dict(fields["discriminator"])
            if fields.get("growing") is not None:
                growing = dict(fields["growing"])
                for name in ("lr_by_resolution", "batch_factor_by_resolution"):
                    growing[name] = {int(r): value for r, value in growing[name].items()}
                fields["growing"] = GrowingConfig(**growing)
            if "betas" in fields:
                fields["betas"] = tuple(fields["betas"])
            return cls(**fields)
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError(
                f"training options: got a value of the wrong kind ({error}), expected what styleforge has written; "
                "was the file edited by hand?"
            ) from error
