"""The config of a training run: one dataclass, stored in the run directory and in every checkpoint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from styleforge.networks import DiscriminatorConfig, GeneratorConfig

Precision = Literal["auto", "fp32", "bf16", "fp16"]


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

    def __post_init__(self) -> None:
        positive = ("total_kimg", "batch", "g_lr", "d_lr", "eps", "kimg_per_tick", "snapshot_ticks", "pl_batch_shrink")
        flags = {"total_kimg": "--kimg", "g_lr": "--glr", "d_lr": "--dlr", "kimg_per_tick": "--tick"}
        flags |= {"snapshot_ticks": "--snap"}
        for field in positive:
            if getattr(self, field) <= 0:
                flag = flags.get(field, f"--{field.replace('_', '-')}")
                raise ValueError(f"{field}: got {getattr(self, field)}, expected a positive number ({flag})")
        for field in ("gamma", "r1_interval", "pl_weight", "pl_interval", "workers", "keep", "ema_kimg", "seed"):
            if getattr(self, field) < 0:
                raise ValueError(
                    f"{field}: got {getattr(self, field)}, expected 0 or more (--{field.replace('_', '-')})"
                )
        if self.batch_gpu is not None and self.batch_gpu < 1:
            raise ValueError(f"batch_gpu: got {self.batch_gpu}, expected 1 or more (--batch-gpu)")
        if self.pl_weight and not self.pl_interval:
            raise ValueError("pl_interval: got 0 with a path length weight, expected 1 or more (--pl-interval)")
        if self.generator.size != self.discriminator.size:
            raise ValueError("generator, discriminator: got different resolutions, expected the same")
        if (self.growing is not None) != self.generator.progressive:
            raise ValueError("growing: got a schedule for networks that do not grow, or none for some that do")

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
            wrong = sorted(missing) or sorted(set(values) - known)
            raise ValueError(f"training options: got an unknown or incomplete set ({wrong[0]!r}); is the file newer?")
        fields = dict(values)
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
