"""Small random generators for the tests, as lively as trained ones."""

import torch

from styleforge import checkpoint
from styleforge.networks import Generator, GeneratorConfig

CASES = {
    "square": {},
    "non-square": {"resolution": (24, 32)},
    "conditional": {"c_dim": 3},
    "labels-as-matrix": {"c_dim": 3, "label_mode": "matrix"},
    "config-a": {"style_block": "instance", "architecture": "orig", "progressive": True},
    "gray": {"img_channels": 1},
    "rgba": {"img_channels": 4},
    "many-channels": {"img_channels": 6},
    "no-noise": {"use_noise": False},
}
"""Fields in which each kind of generator differs from the plainest one."""


def tiny_generator(kind="square"):
    """A generator of 16×16 pictures (32 wide, 24 high if non-square) whose noise and mean w are not zero."""
    torch.manual_seed(1)
    shared = {"resolution": 16, "z_dim": 8, "w_dim": 8, "mapping_layers": 2, "channel_base": 256, "channel_max": 12}
    G = Generator(GeneratorConfig(**shared | CASES[kind])).eval().requires_grad_(False)
    for noise_input in G.synthesis.noise_inputs():
        noise_input.strength.fill_(0.3)
    G.w_avg.normal_()
    return G


def save_tiny(folder, kind="square"):
    """The same in a checkpoint; returns its path as text."""
    path = folder / f"{kind}.safetensors"
    checkpoint.save(path, G_ema=tiny_generator(kind))
    return str(path)
