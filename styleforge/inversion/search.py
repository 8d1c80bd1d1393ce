"""One search for latents: Adam on w and noise maps, for some targets at a time (Karras et al. 2020, Appendix D)."""
# Shapes: n targets, B rows of a pass (B >= n), T steps, L number of ws, W length of w, K length of an embedding,
# C image channels, H W image size, h w size of a noise map.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from styleforge import images
from styleforge.features import Distance
from styleforge.inversion.config import ProjectionConfig, Space
from styleforge.inversion.coordinates import Whitening
from styleforge.inversion.distances import shrink
from styleforge.inversion.noise import autocorrelation, renormalize_
from styleforge.inversion.result import Projection
from styleforge.latents import GaussianLatents
from styleforge.networks import Generator
from styleforge.precision import exact_float32


class Start(NamedTuple):
    """Where the search for one target begins; nothing in it depends on other targets."""

    w: Tensor
    """[W]."""
    sigma: float
    """sigma_w: the scale of the noise on w."""
    draws: np.random.Generator
    """The target's own random numbers, drawn on the CPU so that devices agree."""


@dataclass(kw_only=True, slots=True, eq=False)
class Search:
    """How to search; `run` does it.

    Rows of a pass have nothing to do with each other: their losses are summed, and Adam works on each number alone.
    """

    G: Generator
    """The generator; work is done on its device."""
    space: Space
    """``w`` or ``w+``."""
    distance: Distance
    """Between pictures, on the same device."""
    prior: GaussianLatents | None
    """Adds its energy to the loss."""
    whitening: Whitening | None
    """The prior's, if it is to be searched there instead of in w."""
    config: ProjectionConfig
    """Schedules and weights."""
    batch: int
    """Rows of a pass. With fewer targets the last one fills up the rest, since the rounding errors of a row depend on
    the number of rows, and a thousand steps make large differences of small ones."""
    num_frames: int
    """How many pictures to keep on the way."""

    @exact_float32()
    def run(
        self, targets: Tensor, starts: Sequence[Start], progress: Callable[[int], None] | None = None
    ) -> Projection:
        """Moves latents towards targets.

        Args:
            targets: [n, C, H, W] uint8, n up to ``batch``.
            starts: One for each.
            progress: Called with the number of steps that were taken.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        config, n = self.config, len(targets)
        rows = torch.arange(self.batch).clamp(max=n - 1)  # [B]: whose row it is
        with torch.no_grad():
            wanted = self._embed(images.from_uint8(targets[rows].to(self.G.w_avg.device)))  # [B, K]
        x, noise = self._begin(starts, rows)
        parameters = [x, *noise]
        optimizer = torch.optim.Adam(parameters)
        num_frames = min(self.num_frames, config.num_steps)
        frames: list[Tensor] = []
        # Whole from the start: a small tensor kept at each step would pin freed memory between steps, gigabytes in all.
        history: dict[str, Tensor] = {}
        late_losses: list[list[float]] = []
        stopped: dict[int, list[Tensor]] = {}  # the latents of targets that have stopped; their rows go on in vain

        for step in range(config.num_steps):
            # The losses at w with noise on it.
            w, amount = self._to_w(x), config.latent_noise_at(step)
            img = self._synthesize(w + self._latent_noise(starts, rows, amount) if amount else w, noise)  # [B, C, H, W]
            losses = self._losses(img, wanted, x, noise)
            if step == 0:
                _require_finite(losses["loss"])
            for name, values in losses.items():
                if name not in history:
                    history[name] = values.new_full((config.num_steps, n), torch.nan)
                running = [i for i in range(n) if i not in stopped]
                history[name][step, running] = values.detach()[running]
            if num_frames and step * num_frames >= len(frames) * config.num_steps:
                frames.append(images.to_uint8(img[:n]).cpu())

            # A step of Adam.
            gradients = torch.autograd.grad(losses["loss"].sum(), parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.param_groups[0]["lr"] = config.learning_rate_at(step)
            optimizer.step()
            for maps in noise:
                renormalize_(maps)

            if config.plateau is not None and step >= config.first_late_step:
                late_losses.append(losses["loss"].tolist())
                for i in set(range(n)) - set(stopped):
                    if config.is_plateau([late[i] for late in late_losses]):
                        stopped[i] = [parameter[i].detach().clone() for parameter in parameters]
            if progress is not None:
                progress(step + 1)
            if len(stopped) == n:
                break

        with torch.no_grad():
            for i, latents in stopped.items():
                for parameter, kept in zip(parameters, latents, strict=True):
                    parameter[i] = kept
        result = self._measure(self._to_w(x).detach(), [maps.detach() for maps in noise], wanted, history, n)
        if num_frames:
            result.frames = torch.stack(frames + [result.images] * (num_frames + 1 - len(frames)))
        return result

    def _begin(self, starts: Sequence[Start], rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Leaves of the graph: x [B, 1, W], or [B, L, W] in W+, and the noise maps [B, 1, h, w] that are searched."""
        device = self.G.w_avg.device
        w = torch.stack([start.w for start in starts])[rows].to(device, torch.float32)[:, None]  # [B, 1, W]
        w = w.repeat(1, 1 if self.space == "w" else self.G.num_ws, 1)
        noise = []
        for noise_input in self.G.synthesis.noise_inputs() if self.config.optimize_noise else []:
            noise.append(_normal(starts, (1, *noise_input.const.shape))[rows].to(device).requires_grad_())
        x = w if self.whitening is None else self.whitening.from_w(w)
        return x.requires_grad_(), noise

    def _to_w(self, x: Tensor) -> Tensor:
        """What is searched -> w, both [B, 1 or L, W]."""
        return x if self.whitening is None else self.whitening.to_w(x)

    def _latent_noise(self, starts: Sequence[Start], rows: Tensor, amount: float) -> Tensor:
        """N(0, (amount · sigma_w)²) for w, [B, 1 or L, W]."""
        num = 1 if self.space == "w" else self.G.num_ws
        scales = amount * torch.tensor([start.sigma for start in starts])[:, None, None]
        return (scales * _normal(starts, (num, self.G.w_dim)))[rows].to(self.G.w_avg.device)

    def _synthesize(self, w: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """[B, 1 or L, W] and noise maps, or the network's own for none -> img [B, C, H, W]."""
        ws = w.expand(-1, self.G.num_ws, -1)  # [B, L, W]
        img: Tensor = self.G.synthesis(ws, noise_mode="const", noise=noise or None)
        return img

    def _embed(self, img: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K]."""
        return self.distance.embed(shrink(img, self.config.distance_size))

    def _losses(self, img: Tensor, wanted: Tensor, x: Tensor, noise: Sequence[Tensor]) -> dict[str, Tensor]:
        """The loss of every row [B], and its terms without their weights."""
        losses = {"distance": (self._embed(img) - wanted).square().sum(1)}
        total = losses["distance"]
        if noise:
            losses["noise"] = torch.stack([autocorrelation(maps) for maps in noise]).sum(0)
            total = total + self.config.noise_weight * losses["noise"]
        if self.prior is not None:
            energies = self.prior.energy(x) if self.whitening is None else x.square().sum([1, 2])
            losses["energy"] = energies  # of w without noise
            total = total + self.config.prior_weight * losses["energy"]
        return {"loss": total, **losses}

    @torch.no_grad()
    def _measure(
        self, w: Tensor, noise: list[Tensor], wanted: Tensor, history: dict[str, Tensor], n: int
    ) -> Projection:
        """Measures the first n pictures as they will be seen, in 8 bits."""
        images_uint8 = images.to_uint8(self._synthesize(w, noise))
        distances = (self._embed(images.from_uint8(images_uint8)) - wanted).square().sum(1)[:n]
        _require_finite(w)  # 8 bits would hide it
        return Projection(
            ws=w[:n].repeat(1, self.G.num_ws // w.shape[1], 1).cpu(),
            noise=[maps[:n].cpu() for maps in noise] or None,
            images=images_uint8[:n].cpu(),
            distances=distances.cpu(),
            energies=None if self.prior is None else self.prior.energy(w)[:n].cpu(),
            history={name: values.cpu() for name, values in history.items()},
        )


def _require_finite(x: Tensor) -> None:
    if not x.isfinite().all():
        raise FloatingPointError(
            "loss: got numbers that are not finite, expected pictures; take another snapshot, or a lower learning rate"
        )


def _normal(starts: Sequence[Start], shape: tuple[int, ...]) -> Tensor:
    """[n, *shape] from N(0, 1): each target's from its own random numbers."""
    draws = [start.draws.standard_normal(shape, dtype=np.float32) for start in starts]
    return torch.from_numpy(np.stack(draws))
