"""Training: presets, the loop, and runs that survive (Karras et al. 2020, Appendix B)."""

from styleforge.training.config import GrowingConfig, TrainConfig
from styleforge.training.loop import DivergedError, TrainResult
from styleforge.training.presets import training_preset, training_preset_names
from styleforge.training.run import open_dataset, resume, train

__all__ = [
    "DivergedError",
    "GrowingConfig",
    "TrainConfig",
    "TrainResult",
    "open_dataset",
    "resume",
    "train",
    "training_preset",
    "training_preset_names",
]
