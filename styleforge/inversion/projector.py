"""Projection: which latents make a picture? (Karras et al. 2020, Section 5; Wulff & Torralba, Section 3)."""
# Shapes: N targets, L number of ws, W length of w, C image channels or length of a label, H W image size.

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from styleforge.features import Distance
from styleforge.inversion.config import ProjectionConfig, Space
from styleforge.inversion.coordinates import Whitening
from styleforge.inversion.distances import choose_distance
from styleforge.inversion.result import Projection
from styleforge.inversion.search import Search, Start
from styleforge.latents import GaussianLatents, sample_w
from styleforge.latents.gaussian import mapping_sha256
from styleforge.memory import out_of_memory
from styleforge.networks import Discriminator, Generator
from styleforge.networks.mapping import require_labels
from styleforge.ops.shapes import require_shape

Prior = Literal["gaussian"]


def project(
    G: Generator,
    targets: Tensor,
    *,
    space: Space = "w",
    prior: Prior | GaussianLatents | None = None,
    distance: str | Distance = "auto",
    num_steps: int | None = None,
    optimize_noise: bool | None = None,
    seed: int = 0,
    c: Tensor | None = None,
    D: Discriminator | None = None,
    weights_dir: str | Path | None = None,
    offline: bool = False,
    config: ProjectionConfig | None = None,
    batch: int | None = None,
    num_frames: int = 0,
    progress: Callable[[int, int], None] | None = None,
    on_pass: Callable[[int, Projection], None] | None = None,
) -> Projection:
    """Searches latents whose pictures come close to targets.

    What is found for a target follows from the target, the seed and ``batch``, not from the other targets.

    Args:
        G: The generator; work is done on its device.
        targets: [N, C, H, W] uint8, of the network's size and channels; see `read_targets`.
        space: ``w``: one w for all layers; ``w+``: one for each.
        prior: Adds the energy of the Gaussianized latents to the loss (Wulff & Torralba, Eq. 2 and 4): ``gaussian``
            fits them to all classes, or `GaussianLatents` of this network.
        distance: As `choose_distance` takes it, and so are ``D``, ``weights_dir`` and ``offline``. A `Distance` is
            moved to the generator's device.
        num_steps: Steps of Adam; None for the config's. The schedules are stretched to them.
        optimize_noise: Whether noise maps are found as well; None for the config's.
        seed: Of all random numbers, together with each target's pixels.
        c: One label [C] for all targets, or one for each [N, C]: the search starts at the mean w of the label. None
            for an unconditional network, or for the mean over all classes.
        D: A discriminator, for ``pixel+discriminator``.
        weights_dir: Folder with weights files.
        offline: Never download weights.
        config: Schedules and weights; None for the published ones, `ProjectionConfig.for_space`.
        batch: Targets of a pass; None for `default_pass`.
        num_frames: How many pictures to keep on the way, for an animation.
        progress: Called with (done, total) steps, of all passes and restarts.
        on_pass: Called after every pass with the number of its first target and its results.

    Raises:
        ValueError: An argument that does not fit the network.
        OSError: Weights that were asked for are not at hand.
        FloatingPointError: The network makes no finite pictures.
        MemoryError: Memory ran out.
    """
    published = ProjectionConfig.for_space(space)
    config = config or published
    config = dataclasses.replace(
        config,
        num_steps=config.num_steps if num_steps is None else num_steps,
        optimize_noise=config.optimize_noise if optimize_noise is None else optimize_noise,
    )
    _require_targets(targets, G)
    labels = _one_for_each(c, len(targets), G)
    gaussian = _choose_prior(prior, G)
    search = Search(
        G=G,
        space=space,
        distance=choose_distance(distance, D=D, weights_dir=weights_dir, offline=offline).to(G.w_avg.device),
        prior=gaussian,
        whitening=Whitening(gaussian, G.w_avg.device) if gaussian is not None and config.whiten else None,
        config=config,
        batch=batch or default_pass(G),
        num_frames=num_frames,
    )
    settings = {
        "space": space,
        "prior": None if search.prior is None else "gaussian",
        "distance": search.distance.name,
        "distance_checksum": search.distance.checksum,
        "mapping_sha256": mapping_sha256(G),
        "seed": seed,
        "batch": search.batch,
        "config": dataclasses.asdict(config),
    }
    starts_at = _Starts(G, config.num_samples, seed, search.prior)
    total = -(-len(targets) // search.batch) * config.num_steps * (1 + config.restarts)
    done = 0

    def attempt(rows: list[int], number: int) -> Projection:
        starts = [_start(G, targets[i], labels[i], starts_at, seed, number) for i in rows]
        report = None if progress is None else lambda steps: progress(done + steps, total)
        try:
            found = search.run(targets[rows], starts, report)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise MemoryError(f"memory ran out with {search.batch} targets at a time; take fewer (--batch)") from error
        found.settings = settings
        return found

    parts = []
    for first in range(0, len(targets), search.batch):
        rows = list(range(first, min(first + search.batch, len(targets))))
        part = attempt(rows, 0)
        done += config.num_steps
        for number in range(1, config.restarts + 1):
            limit = -torch.inf if config.restart_above is None else config.restart_above
            again = [i for i in range(len(rows)) if part.distances[i] > limit]
            if again:
                part.take_better(again, attempt([rows[i] for i in again], number))
            done += config.num_steps
        if progress is not None:
            progress(done, total)
        if on_pass is not None:
            on_pass(first, part)
        parts.append(part)
    return Projection.join(parts)


def default_pass(G: Generator) -> int:
    """Targets of a pass, from the size of the picture and the device alone.

    On a CPU 4 up to pictures of 64² with 16 channels, and 1 from twice that on, where more would not be quicker per
    target; on others up to 16.
    """
    height, width = G.config.size
    on_cpu = G.w_avg.device.type == "cpu"
    limit, largest = (2**18, 4) if on_cpu else (2**23, 16)
    return min(max(limit // (height * width * G.config.channels[-1]), 1), largest)


class _Starts:
    """Where searches begin, and the scale of W there: measured once for each label."""

    def __init__(self, G: Generator, num_samples: int, seed: int, prior: GaussianLatents | None) -> None:
        self.G, self.num_samples, self.seed, self.prior = G, num_samples, seed, prior
        self._known: dict[tuple[float, ...] | None, tuple[Tensor, float]] = {}

    def of(self, label: Tensor | None) -> tuple[Tensor, float]:
        """The mean w [W], and sigma_w: the root of the mean squared distance from it.

        With a prior, the w at the mean v takes the place of the mean w, which lies off the distribution: in V its
        energy can be hundreds of times that of the network's own w, and the search would begin by coming back.
        """
        key = None if label is None else tuple(label.tolist())
        if key not in self._known:
            w = torch.cat([chunk.cpu().double() for chunk in sample_w(self.G, self.num_samples, self.seed, c=label)])
            mean = w.mean(0)
            sigma = float((w - mean).square().sum(1).mean().sqrt())
            if self.prior is not None:
                mean = self.prior.v_to_w(self.prior.w_to_v(w).mean(0))
            self._known[key] = mean.float(), sigma
        return self._known[key]


def _start(G: Generator, target: Tensor, label: Tensor | None, starts_at: _Starts, seed: int, number: int) -> Start:
    """Where attempt ``number`` on a target begins: see `_Starts`, and then at random w."""
    # The target's pixels in place of its number: a target finds the same alone and among others.
    draws = np.random.default_rng([seed, number, zlib.crc32(target.cpu().numpy().tobytes())])
    w, sigma = starts_at.of(label)
    if number > 0:
        w = next(sample_w(G, 1, int(draws.integers(2**32)), c=label))[0].cpu()
    return Start(w, sigma, draws)


def _require_targets(targets: Tensor, G: Generator) -> None:
    height, width = G.config.size
    mend = "bring the pictures to the network's size and channels, as `styleforge project` does"
    require_shape("targets", targets, [None, G.img_channels, height, width], mend)
    if targets.dtype != torch.uint8:
        raise ValueError(f"targets: got {targets.dtype}, expected torch.uint8; convert with images.to_uint8")
    if not len(targets):
        raise ValueError("targets: got none, expected at least one picture (--target)")


def _one_for_each(c: Tensor | None, num: int, G: Generator) -> list[Tensor | None]:
    """A label [C] for each target; None where there is none."""
    if c is not None:
        c = require_labels(c.expand(num, -1) if c.ndim == 1 else c, num, G.c_dim)
    return [None] * num if c is None else list(c.cpu())


def _choose_prior(prior: Prior | GaussianLatents | None, G: Generator) -> GaussianLatents | None:
    if prior is None:
        return None
    if isinstance(prior, GaussianLatents):
        if prior.mapping_sha256 != mapping_sha256(G):
            raise ValueError(
                "prior: got the latents of another network, expected those of the network at hand; fit them to it"
            )
        return prior
    if prior != "gaussian":
        raise ValueError(f"prior: got {prior!r}, expected gaussian or None (--prior)")
    return GaussianLatents.fit_cached(G)
