"""Latents: from seeds, labels and files to ws and pictures, and loops through the latent space."""

from styleforge.latents.paths import PeriodicArc, PeriodicSpline, loop_frames, map_path
from styleforge.latents.sampling import (
    default_batch,
    generate_images,
    generate_ws,
    load_ws,
    mix_matrix,
    parse_label,
    parse_seeds,
    seed_to_z,
    synthesize,
)

__all__ = [
    "PeriodicArc",
    "PeriodicSpline",
    "default_batch",
    "generate_images",
    "generate_ws",
    "load_ws",
    "loop_frames",
    "map_path",
    "mix_matrix",
    "parse_label",
    "parse_seeds",
    "seed_to_z",
    "synthesize",
]
