"""Datasets: reading (`ImageDataset`), order (`InfiniteSampler`, `batches`), packing (`pack`), checking (`check`).

The functions ``pack`` and ``check`` are in the modules of the same name.
"""

from styleforge.data.dataset import ImageDataset
from styleforge.data.sampler import InfiniteSampler, batches

__all__ = ["ImageDataset", "InfiniteSampler", "batches"]
