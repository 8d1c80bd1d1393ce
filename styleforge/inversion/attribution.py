"""Attribution: which network made a picture? (Karras et al. 2020, Section 5.1, Figure 9).

A network can make its own pictures again, and no others: the distance between a picture and its projection tells.
"""
# Shapes: M networks, N pictures, R real pictures, C image channels, H W image size.

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from styleforge.features import Distance
from styleforge.inversion.calibration import Calibration
from styleforge.inversion.config import ProjectionConfig
from styleforge.inversion.distances import choose_distance
from styleforge.inversion.projector import project
from styleforge.inversion.result import Projection
from styleforge.latents import generate_images
from styleforge.networks import Generator

Progress = Callable[[int, int], None]
OnPass = Callable[[int, Projection], None]


@dataclass(kw_only=True, slots=True, eq=False)
class Attribution:
    """Which of some networks could have made pictures."""

    distances: Tensor
    """[M, N] float32: from picture n to its projection into network m."""
    thresholds: Tensor
    """[M] float32: distances up to it speak for the network; see `Calibration.threshold`."""

    @property
    def scores(self) -> Tensor:
        """[M, N]: distances in units of the network's threshold, which makes networks comparable; below 1 it is it."""
        return self.distances / self.thresholds[:, None]

    def ranking(self, i: int) -> list[int]:
        """The networks' numbers for picture i, the likeliest first."""
        return self.scores[:, i].argsort(stable=True).tolist()

    def maker(self, i: int) -> int | None:
        """The network that made picture i; None if no network comes close enough."""
        best = self.ranking(i)[0]
        return best if self.scores[best, i] <= 1 else None


def calibrate(
    G: Generator,
    reals: Tensor,
    *,
    num_generated: int = 50,
    distance: str | Distance = "auto",
    num_steps: int | None = None,
    seed: int = 0,
    batch: int | None = None,
    progress: Progress | None = None,
    on_pass: OnPass | None = None,
) -> Calibration:
    """Measures how close a network comes to pictures that it made, and to real ones.

    Args:
        G: The generator.
        reals: [R, C, H, W] uint8, of the network's size; pictures that it was not trained on.
        num_generated: How many pictures of its own, without truncation and with random noise, to project.
        distance: As `project` takes it, and so are the other arguments and errors.
        num_steps: Steps of Adam.
        seed: Of the generated pictures and of the projections.
        batch: Targets of a pass.
        progress: Called with (done, total) steps.
        on_pass: Called after every pass with the number of its first picture, the generated ones coming first.
    """
    seeds = np.random.default_rng([seed, 1]).integers(2**32, size=num_generated).tolist()
    c = None
    if G.c_dim:  # all classes in turn
        c = torch.eye(G.c_dim)[torch.arange(num_generated) % G.c_dim]
    parts = [images_uint8 for *_, images_uint8 in generate_images(G, seeds, c=c, noise_mode="random")]
    images_uint8 = torch.cat([*parts, reals.cpu()])
    found = project(
        G,
        images_uint8,
        distance=distance,
        num_steps=num_steps,
        seed=seed,
        batch=batch,
        progress=progress,
        on_pass=on_pass,
    )
    distances = found.distances.tolist()
    settings = {"num_generated": num_generated, **found.settings}
    return Calibration(generated=distances[:num_generated], real=distances[num_generated:], settings=settings)


def attribute(
    networks: Sequence[Generator],
    images: Tensor | Sequence[Tensor],
    *,
    calibrations: Sequence[Calibration],
    distance: str | Distance = "auto",
    num_steps: int | None = None,
    seed: int = 0,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Attribution:
    """Projects pictures into networks, and says which of them could have made each.

    Args:
        networks: The candidates.
        images: [N, C, H, W] uint8; or one such tensor for each network, where their sizes differ.
        calibrations: One for each network, by `calibrate` with the same distance, steps and seed.
        distance: As `project` takes it, and so are the other arguments and errors. One that needs a discriminator
            would differ from network to network.
        num_steps: Steps of Adam.
        seed: Of the projections.
        batch: Targets of a pass.
        progress: Called with (done, total) steps.

    Raises:
        ValueError: Not one calibration for each network, or one that was measured in another way.
    """
    per_network = [images] * len(networks) if isinstance(images, Tensor) else list(images)
    if not len(networks) == len(calibrations) == len(per_network) or not networks:
        raise ValueError(
            f"networks: got {len(networks)} with {len(calibrations)} calibrations and {len(per_network)} sets of "
            "images, expected as many of each, 1 or more"
        )
    distance = choose_distance(distance)
    config = ProjectionConfig.for_space("w")
    if num_steps is not None:
        config = dataclasses.replace(config, num_steps=num_steps)
    for calibration in calibrations:  # before the long work
        _require_same(config, distance, calibration.settings)
    rows = []
    for m, (G, wanted) in enumerate(zip(networks, per_network, strict=True)):
        report = None if progress is None else partial(_shifted, progress, m, len(networks))
        found = project(G, wanted, distance=distance, config=config, seed=seed, batch=batch, progress=report)
        rows.append(found.distances)
    thresholds = torch.tensor([calibration.threshold for calibration in calibrations])
    return Attribution(distances=torch.stack(rows), thresholds=thresholds)


def _shifted(progress: Progress, m: int, num: int, done: int, total: int) -> None:
    """Progress of network m of so many, as a part of the whole."""
    progress(m * total + done, num * total)


def _require_same(config: ProjectionConfig, distance: Distance, calibrated: dict[str, Any]) -> None:
    """Refuses a calibration that was measured with another distance or schedule."""
    search = {"distance_checksum": distance.checksum, "config": dataclasses.asdict(config)}
    expected = {"space": "w", "prior": None, **search}
    different = [name for name, value in expected.items() if calibrated.get(name) != value]
    if different:
        raise ValueError(
            f"calibrations: got one that was measured with another {different[0]}, expected the same for pictures and "
            "calibration; calibrate again"
        )
