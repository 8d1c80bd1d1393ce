"""What a metric needs: pictures of the right kind, enough of them, and the same networks on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from styleforge import dist
from styleforge.data import ImageDataset
from styleforge.metrics.inception_score import SPLITS
from styleforge.metrics.pictures import GeneratedPictures
from styleforge.metrics.recipes import Recipe
from styleforge.metrics.tools import Tools
from styleforge.networks import Generator


def open_data(data: ImageDataset | str | Path | None, G: Generator, *, mirror: bool = False) -> ImageDataset | None:
    """Opens the real pictures for a generator, with labels if it takes any.

    Args:
        data: Where they lie; a dataset is only checked.
        G: The generator.
        mirror: Let mirror images count as real pictures, too, but not in metrics whose names end in ``_full``.

    Raises:
        ValueError: They are of another size, number of channels or kind of labels, or cannot be read.
        OSError: They cannot be read.
    """
    if data is None:
        return None
    dataset = data if isinstance(data, ImageDataset) else ImageDataset(data, use_labels=G.c_dim > 0, mirror=mirror)
    theirs, mine = (*dataset.resolution, dataset.img_channels), (*G.config.size, G.img_channels)
    if theirs != mine or (G.c_dim and dataset.c_dim != G.c_dim):
        names = "{}×{} with {} channels"
        raise ValueError(
            f"{dataset.path}: got pictures of {names.format(*theirs)} and labels of length {dataset.c_dim}, expected "
            f"{names.format(*mine)} and labels of length {G.c_dim} as the network makes them; pack the dataset it was "
            "trained on (--data)"
        )
    return dataset


def require_measurable(recipe: Recipe, pictures: GeneratedPictures) -> None:
    """Refuses, before any work, a metric that these pictures cannot have.

    Raises:
        ValueError: As `require_enough`, or path lengths of changed latents or of a growing network.
    """
    plain = pictures.truncation_psi == 1 and pictures.transform is None
    if recipe.kind == "ppl" and pictures.lod:
        raise ValueError(
            f"{recipe.name}: got level of detail {pictures.lod:g}, expected 0, since path lengths are those of the "
            "whole network; measure them when it has grown (--lod)"
        )
    if recipe.kind == "ppl" and not plain:
        raise ValueError(
            f"{recipe.name}: got changed latents, expected none, since path lengths are those of the whole latent "
            "space; leave out --trunc and --compress"
        )
    require_enough(recipe, pictures.labels)


def require_enough(recipe: Recipe, dataset: ImageDataset | None) -> None:
    """Refuses a metric for which there are too few pictures.

    Raises:
        ValueError: It asks for too few generated pictures, or the dataset has too few, or there is none.
    """
    least = {"pr": recipe.k + 1, "is": 2 * SPLITS}.get(recipe.kind, 2)
    counts = [(recipe.num, "generated pictures")]
    if recipe.max_real != 0:
        if dataset is None:
            raise ValueError(f"{recipe.name}: got no dataset, expected real pictures to compare with (--data)")
        counts.append((num_real(recipe, dataset), f"pictures in {dataset.path}"))
    for num, what in counts:
        if num < least:
            raise ValueError(f"{recipe.name}: got {num} {what}, expected at least {least}; take more")


def num_real(recipe: Recipe, dataset: ImageDataset | None) -> int:
    """How many real pictures a recipe looks at: fewer than it asks for where there are no more."""
    if recipe.max_real == 0 or dataset is None:
        return 0
    there = len(dataset.names) if recipe.full else len(dataset)
    return min(there, recipe.max_real or there)


def require_same_tools(recipes: Sequence[Recipe], tools: Tools) -> None:
    """Refuses ranks that would measure with different networks, such as machines of which one has no weights.

    Raises:
        ValueError: On every rank, if the networks of any rank are others than those of rank 0.
    """
    mine = [[tool.name, tool.checksum] for tool in (tools.tool_for(recipe.kind) for recipe in recipes)]
    first = dist.broadcast_object(mine)
    with dist.together():
        for one, other in zip(mine, first, strict=True):
            if one != other:
                raise ValueError(
                    f"extractor: got {one[0]} on rank {dist.rank()}, expected {other[0]} as on rank 0; put the same "
                    "weights on every machine"
                )
