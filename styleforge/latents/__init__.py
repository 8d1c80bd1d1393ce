"""Latents: from seeds, labels and files to ws and pictures, loops through them, and how they are distributed."""

from styleforge.latents.directions import Directions, find_directions
from styleforge.latents.gaussian import GaussianLatents
from styleforge.latents.normality import MarginalNormality, marginal_normality
from styleforge.latents.paths import PeriodicArc, PeriodicSpline, loop_frames, map_path
from styleforge.latents.sampling import (
    default_batch,
    generate_images,
    generate_ws,
    load_projections,
    load_ws,
    mix_matrix,
    parse_label,
    parse_seeds,
    seed_to_z,
    synthesize,
)
from styleforge.latents.statistics import sample_w

__all__ = [
    "Directions",
    "GaussianLatents",
    "MarginalNormality",
    "PeriodicArc",
    "PeriodicSpline",
    "default_batch",
    "find_directions",
    "generate_images",
    "generate_ws",
    "load_projections",
    "load_ws",
    "loop_frames",
    "map_path",
    "marginal_normality",
    "mix_matrix",
    "parse_label",
    "parse_seeds",
    "sample_w",
    "seed_to_z",
    "synthesize",
]
