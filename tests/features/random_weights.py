"""Random weights in other networks' layouts, and pictures to go through them."""

from __future__ import annotations

import contextlib
import math
from unittest import mock

import torch
from torch import nn

from styleforge.networks import Discriminator, DiscriminatorConfig

DRAWING = ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "trunc_normal_", "constant_")


@contextlib.contextmanager
def nothing_drawn():
    """Makes networks without drawing their initial weights, which would take seconds."""
    with contextlib.ExitStack() as stack:
        for name in DRAWING:
            stack.enter_context(mock.patch.object(nn.init, name, lambda tensor, *_, **__: tensor))
        yield


def random_state(shapes):
    """Weights that keep the scale of features through ReLU layers; large matrices share their numbers among rows."""
    random, state = torch.Generator().manual_seed(0), {}
    for name, tensor in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        elif name.endswith("running_var"):
            state[name] = torch.rand(tensor.shape, generator=random) + 0.5
        elif tensor.ndim == 1:
            state[name] = 0.1 * torch.randn(tensor.shape, generator=random) + ("bn.weight" in name)
        elif tensor.numel() > 1e7:  # one row shifted by one from row to row, so that the file is small
            O, I = tensor.shape
            state[name] = (torch.randn(O + I, generator=random) * math.sqrt(2 / I)).as_strided((O, I), (1, 1))
        else:
            state[name] = torch.randn(tensor.shape, generator=random) * math.sqrt(2 / tensor[0].numel())
    return state


def pictures(num=2, channels=3, height=40, width=48, seed=0):
    """Smooth random pictures [N, C, H, W] uint8."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, channels, 6, 6, generator=random)
    fine = nn.functional.interpolate(coarse, (height, width), mode="bicubic") * 255
    return fine.clamp(0, 255).to(torch.uint8)


def make_discriminator(**values):
    """A discriminator of 16×16 pictures."""
    tiny = {"resolution": 16, "channel_base": 128, "channel_max": 8}
    return Discriminator(DiscriminatorConfig(**tiny | values))
