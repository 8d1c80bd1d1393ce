"""The networks of StyleGAN and StyleGAN2, each made from a config (Karras et al. 2019, 2020; Tan et al.)."""

from styleforge.networks.config import DiscriminatorConfig, GeneratorConfig
from styleforge.networks.discriminator import Discriminator
from styleforge.networks.generator import Generator
from styleforge.networks.growing import fade_images
from styleforge.networks.presets import network_preset, preset_names
from styleforge.networks.sizes import nearest_legal_sizes, size_plan

__all__ = [
    "Discriminator",
    "DiscriminatorConfig",
    "Generator",
    "GeneratorConfig",
    "fade_images",
    "nearest_legal_sizes",
    "network_preset",
    "preset_names",
    "size_plan",
]
