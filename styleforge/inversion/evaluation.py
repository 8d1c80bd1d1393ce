"""How well inversion finds the true latents, with and without the prior (Wulff & Torralba, Section 3)."""
# Shapes: N targets, P pairs, T times, L number of ws, W length of w, C image channels, H W image size.

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from styleforge import images
from styleforge.features import Distance
from styleforge.inversion.config import ProjectionConfig, Space
from styleforge.inversion.coordinates import Whitening
from styleforge.inversion.distances import shrink
from styleforge.inversion.projector import default_pass, project
from styleforge.latents import GaussianLatents, sample_w, synthesize
from styleforge.networks import Generator

Kind = Literal["R", "G", "G+"]
"""Real pictures; generated ones with one w for all layers; and with one for each."""
NUM_TIMES = 11
"""Steps of an interpolation, both ends included."""


class Condition(NamedTuple):
    """One way of inversion, on one kind of pictures. Data and model match: G+ goes with ``w+``, G with ``w``."""

    space: Space
    """``w`` or ``w+``."""
    prior_weight: float | None
    """lambda of Eq. 2 and 4; None for no prior. 0 searches as with a prior, and has none: a control."""
    kind: Kind
    """Which pictures."""

    @property
    def method(self) -> str:
        """What a table calls the way of inversion."""
        prior = "" if self.prior_weight is None else f" + prior {self.prior_weight:g}"
        return self.space.upper() + prior


class Targets(NamedTuple):
    """Pictures, and their true latents if they have any."""

    images: Tensor
    """[N, C, H, W] uint8."""
    ws: Tensor | None
    """[N, L, W]."""


@dataclass(kw_only=True, slots=True, eq=False)
class Inversion:
    """What one condition found; on the CPU."""

    ws: Tensor
    """[N, L, W]."""
    distances: Tensor
    """[N]: from the targets to the pictures of ws."""

    def save(self, file: Any) -> None:
        """Writes an npz archive to a path or an open file."""
        np.savez(file, ws=self.ws.numpy(), distances=self.distances.numpy())

    @classmethod
    def load(cls, file: Any) -> Self:
        """Inverse of `save`.

        Raises:
            ValueError: Damaged, or another kind of file.
            OSError: There is none.
        """
        try:
            with np.load(file, allow_pickle=False) as archive:
                return cls(ws=torch.from_numpy(archive["ws"]), distances=torch.from_numpy(archive["distances"]))
        except OSError:
            raise
        except Exception as error:  # damage can raise anything in zipfile and numpy
            raise ValueError(f"{file}: got no inversion, expected an archive of ws and distances") from error


def conditions(prior_weights: Sequence[float]) -> list[Condition]:
    """All conditions of Tables 1 and 2: both spaces, real and matching generated pictures, without and with priors."""
    kinds: dict[Space, tuple[Kind, ...]] = {"w": ("R", "G"), "w+": ("R", "G+")}
    methods = [None, *prior_weights]
    return [Condition(space, weight, kind) for space in kinds for weight in methods for kind in kinds[space]]


@torch.no_grad()
def generated_targets(G: Generator, kind: Kind, num: int, seed: int) -> Targets:
    """Pictures of the kind ``G`` or ``G+``, of any class, with the network's own noise maps."""
    rows = num if kind == "G" else num * G.num_ws
    w = torch.cat(list(sample_w(G, rows, int(np.random.SeedSequence([seed, rows]).generate_state(1)[0]))))
    ws = w[:, None].repeat(1, G.num_ws, 1) if kind == "G" else w.unflatten(0, (num, G.num_ws))  # [N, L, W]
    return Targets(torch.cat(list(synthesize(G, ws))), ws.cpu())


def search_config(condition: Condition, *, num_steps: int | None = None, whiten: bool = True) -> ProjectionConfig:
    """The published schedules and fixed noise maps, with the condition's lambda.

    Args:
        condition: What is to be searched.
        num_steps: Steps of Adam; None for the published ones.
        whiten: With a prior; see `ProjectionConfig.whiten`.
    """
    config = ProjectionConfig.for_space(condition.space)
    return dataclasses.replace(
        config,
        num_steps=config.num_steps if num_steps is None else num_steps,
        optimize_noise=False,
        prior_weight=condition.prior_weight or 0.0,
        whiten=whiten and condition.prior_weight is not None,
    )


def invert(
    G: Generator,
    images_uint8: Tensor,
    condition: Condition,
    *,
    gaussian: GaussianLatents,
    distance: Distance,
    config: ProjectionConfig,
    seed: int = 0,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inversion:
    """Finds latents of pictures [N, C, H, W] in one condition; see `project`, and `search_config` for the config."""
    found = project(
        G,
        images_uint8,
        space=condition.space,
        prior=None if condition.prior_weight is None else gaussian,
        distance=distance,
        seed=seed,
        config=config,
        batch=batch,
        progress=progress,
    )
    return Inversion(ws=found.ws, distances=found.distances)


def latent_error(ws: Tensor, true: Tensor, space: Space) -> Tensor:
    """L2 distances between latents [N, L, W]: of w [W] in W, of all layers' together [L·W] in W+. [N]."""
    difference = ws - true
    return (difference[:, 0] if space == "w" else difference.flatten(1)).norm(dim=1)


def pairs(num: int, num_pairs: int, seed: int) -> Tensor:
    """Pairs [P, 2] of different numbers below ``num``, in random order; at most as many as there are."""
    every = torch.combinations(torch.arange(num))  # [num · (num - 1) / 2, 2]
    order = np.random.default_rng(seed).permutation(len(every))
    return every[torch.from_numpy(order[:num_pairs])]


def interpolate(ws: Tensor, between: Tensor, t: float) -> Tensor:
    """Points [P, L, W] on the straight lines between pairs [P, 2] of ws [N, L, W]; t from 0 to 1."""
    return torch.lerp(ws[between[:, 0]], ws[between[:, 1]], t)


@torch.no_grad()
def interpolation_errors(
    G: Generator, inversion: Inversion, true: Tensor, space: Space, between: Tensor, distance: Distance
) -> tuple[list[float], list[float]]:
    """How far interpolations between inversions are from those between the true latents (Figure 2).

    Args:
        G: The generator.
        inversion: What was found.
        true: [N, L, W]: the true latents.
        space: Where it was found.
        between: Pairs [P, 2].
        distance: Between images, on the generator's device.

    Returns:
        The mean distance of pictures, and of latents, at `NUM_TIMES` times from 0 to 1.
    """
    image_errors, latent_errors = [], []
    for t in torch.linspace(0, 1, NUM_TIMES).tolist():
        wanted, found = (interpolate(ws, between, t) for ws in (true, inversion.ws))
        latent_errors.append(float(latent_error(found, wanted, space).mean()))
        batches = (_embed(G, ws, distance) for ws in (wanted, found))
        errors = [(a - b).square().sum(1) for a, b in zip(*batches, strict=True)]
        image_errors.append(float(torch.cat(errors).mean()))
    return image_errors, latent_errors


def _embed(G: Generator, ws: Tensor, distance: Distance) -> Any:
    """Embeddings of the pictures of ws, some at a time."""
    size = ProjectionConfig().distance_size
    for part in ws.split(default_pass(G)):
        img = G.synthesis(part.to(G.w_avg.device), noise_mode="const")
        yield distance.embed(shrink(img, size))


def summarize(
    G: Generator,
    targets: Mapping[Kind, Targets],
    inversions: Mapping[Condition, Inversion],
    *,
    gaussian: GaussianLatents,
    distance: Distance,
    num_pairs: int = 80,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The numbers of Tables 1 and 2 and of Figures 2, 7 and 8, as JSON objects.

    Args:
        G: The generator.
        targets: Of each kind.
        inversions: Of each condition.
        gaussian: The prior.
        distance: Between images, on the generator's device.
        num_pairs: Pairs to interpolate between.
        seed: Of the pairs.

    Returns:
        One object for each condition: space, prior_weight, kind, method, image_error (mean over targets),
        energy_per_layer (median) and, of generated pictures, latent_error (mean), latent_error_sigmas (the same in
        units of the standard deviation of each principal axis of V, root mean square over axes and layers), and the
        errors of interpolation at each t.
    """
    rows, whitening = [], Whitening(gaussian, torch.device("cpu"))
    for condition, inversion in inversions.items():
        ws = inversion.ws[:, :1] if condition.space == "w" else inversion.ws
        row = {**condition._asdict(), "method": condition.method}
        row["image_error"] = float(inversion.distances.mean())
        row["energy_per_layer"] = float(gaussian.energy(ws).median() / ws.shape[1])
        true = targets[condition.kind].ws
        if true is not None:
            row["latent_error"] = float(latent_error(inversion.ws, true, condition.space).mean())
            deviations = whitening.from_w(inversion.ws) - whitening.from_w(true)  # [N, L, W]
            row["latent_error_sigmas"] = float(deviations.square().mean([1, 2]).sqrt().mean())
            between = pairs(len(true), num_pairs, seed)
            errors = interpolation_errors(G, inversion, true, condition.space, between, distance)
            row["interpolation_image_error"], row["interpolation_latent_error"] = errors
        rows.append(row)
    return rows


@torch.no_grad()
def contact_sheet(
    G: Generator, targets: Targets, rows: Sequence[Tensor], *, num_pairs: int = 3, columns: int = 9
) -> Tensor:
    """Interpolations, one below the other, for some pairs of targets (Figure 3).

    Args:
        G: The generator.
        targets: 2 · ``num_pairs`` or more.
        rows: The ws [N, L, W] of each row; the true ones of generated targets come before them by themselves.
        num_pairs: Pairs of neighbours to show.
        columns: Pictures from end to end.

    Returns:
        [C, H', W'] uint8: in each row the two targets at the ends, and the interpolation between them.
    """
    every = [*([] if targets.ws is None else [targets.ws]), *rows]
    cells = []
    for pair in range(num_pairs):
        a, b = 2 * pair, 2 * pair + 1
        for ws in every:
            between = torch.tensor([[a, b]])
            way = torch.cat([interpolate(ws, between, t) for t in torch.linspace(0, 1, columns).tolist()])
            cells += [targets.images[a : a + 1], *synthesize(G, way), targets.images[b : b + 1]]
    return images.grid(torch.cat(cells), columns + 2)
