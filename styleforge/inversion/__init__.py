"""Inversion: the latents of a picture (`project`), and which network made it (`attribute`)."""

from styleforge.inversion.attribution import Attribution, attribute, calibrate
from styleforge.inversion.calibration import Calibration
from styleforge.inversion.calibration_plot import plot_calibrations
from styleforge.inversion.config import ProjectionConfig
from styleforge.inversion.distances import choose_distance
from styleforge.inversion.projector import default_pass, project
from styleforge.inversion.result import Projection, measures, save
from styleforge.inversion.targets import Target, read_targets

__all__ = [
    "Attribution",
    "Calibration",
    "Projection",
    "ProjectionConfig",
    "Target",
    "attribute",
    "calibrate",
    "choose_distance",
    "default_pass",
    "measures",
    "plot_calibrations",
    "project",
    "read_targets",
    "save",
]
