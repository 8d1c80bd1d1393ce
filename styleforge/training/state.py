"""All that the training loop changes, and its way into a checkpoint and back."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from styleforge import checkpoint, dist
from styleforge.checkpoint import Checkpoint
from styleforge.networks import Discriminator, Generator
from styleforge.precision import computes_bf16
from styleforge.training.config import TrainConfig
from styleforge.training.draws import seed_of
from styleforge.training.schedule import lod_at
from styleforge.training.stats import Collector

NetworkName = Literal["G", "D"]
NETWORKS: tuple[NetworkName, NetworkName] = ("G", "D")


@dataclass(kw_only=True, slots=True)
class Counters:
    """Where a run is."""

    cur_nimg: int = 0
    """Real images shown to the discriminator."""
    batch_idx: int = 0
    """Steps made."""
    cur_tick: int = 0
    """Ticks ended."""
    tick_start_nimg: int = 0
    """``cur_nimg`` at the start of the current tick."""
    lod: float | None = None
    """Level of detail of the last step; None before the first."""
    train_sec: float = 0.0
    """Seconds of training over all sessions of the run."""


class TrainState:
    """Networks, average, optimizers, running means, counters and statistics of a run.

    Args:
        config: The run's config.
        device: Where to train.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(config.seed, "networks"))  # on the CPU: the same weights on every device
            self.G = Generator(config.generator)
            self.D = Discriminator(config.discriminator)
        self.G.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.D.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        dtype = compute_dtype(config, device)
        self.G.synthesis.compute_dtype = self.D.compute_dtype = dtype
        self.G.synthesis.checkpoint_resolution = self.D.checkpoint_resolution = config.checkpoint_resolution
        self.pl_mean = torch.zeros([], device=device)
        self.pictures = ""
        """A digest of the pictures' names, whose order decides what is seen next."""
        self.counters = Counters()
        self.collector = Collector(device)
        self.optimizers: dict[NetworkName, torch.optim.Adam] = {}
        self.reset_optimizers()
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def network(self, name: NetworkName) -> nn.Module:
        """The network that an optimizer works on."""
        return self.G if name == "G" else self.D

    def lazy_correction(self, name: NetworkName) -> float:
        """C = k / (k + 1) for a regulariser that runs every k steps; 1 without one (Appendix B)."""
        config = self.config
        if name == "G":
            k = config.pl_interval if config.pl_weight else 0
        else:
            k = config.r1_interval if config.gamma else 0
        return k / (k + 1) if k else 1.0

    def reset_optimizers(self) -> None:
        """Makes new optimizers without history."""
        for name, lr in zip(NETWORKS, (self.config.g_lr, self.config.d_lr), strict=True):
            c = self.lazy_correction(name)
            beta1, beta2 = self.config.betas
            self.optimizers[name] = torch.optim.Adam(
                self.network(name).parameters(),
                lr=lr * c,
                betas=(beta1**c, beta2**c),
                eps=self.config.eps,
                fused=self.device.type in ("cpu", "cuda"),
            )

    def set_learning_rates(self, g_lr: float, d_lr: float) -> None:
        """Sets the learning rates, given before the lazy correction."""
        for name, lr in zip(NETWORKS, (g_lr, d_lr), strict=True):
            for group in self.optimizers[name].param_groups:
                group["lr"] = lr * self.lazy_correction(name)

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """Moves the averaged generator towards the one in training, all parameters at once."""
        get_ema_multi_avg_fn(decay)(list(self.G_ema.parameters()), list(self.G.parameters()), 1)
        for mean, latest in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            mean.copy_(latest)

    def first_broken(self) -> str | None:
        """Name of the first parameter that is not finite, or whose optimizer is not; None if all are.

        A gradient beyond 1e19 overflows Adam's mean square, and the parameter would stand still for ever.
        """
        for network in NETWORKS:
            for name, parameter in self.network(network).named_parameters():
                if not bool(torch.isfinite(parameter).all()):
                    return f"{network}.{name}"
                mean_square = self.optimizers[network].state.get(parameter, {}).get("exp_avg_sq")
                if mean_square is not None and not bool(torch.isfinite(mean_square).all()):
                    return f"the gradient of {network}.{name}"
        return None

    def save(self, path: Path) -> None:
        """Writes a checkpoint of everything; see `styleforge.checkpoint.save`."""
        training: dict[str, Tensor] = {"pl_mean": self.pl_mean}
        for network, optimizer in self.optimizers.items():
            for name, parameter in self.network(network).named_parameters():
                for key, value in optimizer.state.get(parameter, {}).items():
                    training[f"optimizer.{network}.{name}.{key}"] = value
        num_processes = dist.world_size()  # which may be another when the run goes on
        training |= {f"stats.{name}": moments * num_processes for name, moments in self.collector.moments.items()}
        counters = {name: getattr(self.counters, name) for name in Counters.__slots__}
        info = {"counters": counters, "pictures": self.pictures, "kimg": self.counters.cur_nimg / 1000}
        info["lod"] = lod_at(self.config, self.counters.cur_nimg)
        checkpoint.save(
            path,
            G_ema=self.G_ema,
            G=self.G,
            D=self.D,
            config=self.config.to_dict(),
            training=training,
            info=info | {"scaler": self.scaler.state_dict()},
        )

    def restore(self, source: Checkpoint) -> None:
        """Takes over everything from a checkpoint that `save` has written.

        Raises:
            ValueError: The checkpoint holds no training state, or that of other networks.
        """
        if source.G is None or source.D is None or source.G_ema is None or "pl_mean" not in source.training:
            raise ValueError("checkpoint: got one without training state, expected one of a run; use --init-from")
        if (source.G.config, source.D.config) != (self.config.generator, self.config.discriminator):
            raise ValueError(
                "checkpoint: got other networks than the run's options, expected the same; use --init-from"
            )
        for mine, theirs in ((self.G, source.G), (self.D, source.D), (self.G_ema, source.G_ema)):
            mine.load_state_dict(theirs.state_dict())
        self.pl_mean.copy_(source.training["pl_mean"])
        for network, optimizer in self.optimizers.items():
            optimizer.state.clear()
            for name, parameter in self.network(network).named_parameters():
                prefix = f"optimizer.{network}.{name}."
                if prefix + "step" not in source.training:
                    continue  # not trained yet, as the high resolutions of a growing network
                optimizer.state[parameter] = {
                    "step": source.training[prefix + "step"].to(self.device),
                    **{k: _like(parameter, source.training[prefix + k]) for k in ("exp_avg", "exp_avg_sq")},
                }
        prefix = "stats."
        self.collector.moments = {
            name.removeprefix(prefix): value.to(self.device) / dist.world_size()
            for name, value in source.training.items()
            if name.startswith(prefix)
        }
        self.counters = Counters(**source.info["counters"])
        if source.info["scaler"]:
            self.scaler.load_state_dict(source.info["scaler"])


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """A copy of ``value`` in the device and memory layout of ``parameter``."""
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def compute_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """The float type of the features; None for float32."""
    names: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if config.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and computes_bf16(device) else None
    if config.precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision: got fp16 on {device.type}, expected fp32 or bf16 there (--precision)")
    return names[config.precision]


def first_not_finite(stats: dict[str, dict[str, Any]]) -> str | None:
    """Name of the first statistic that is not finite; None if all are."""
    return next((name for name, value in stats.items() if not math.isfinite(value["mean"])), None)
