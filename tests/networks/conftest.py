"""What the network tests share: configs cut down to a size that a test can afford."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from styleforge.networks import DiscriminatorConfig, GeneratorConfig


def _tiny(config: GeneratorConfig | DiscriminatorConfig) -> GeneratorConfig | DiscriminatorConfig:
    narrow = replace(config, channel_base=8 * config.plan.nominal[-1], channel_max=12, mapping_layers=2)
    return replace(narrow, z_dim=8, w_dim=8) if isinstance(narrow, GeneratorConfig) else narrow


@pytest.fixture(scope="session")
def tiny() -> Callable[[GeneratorConfig | DiscriminatorConfig], GeneratorConfig | DiscriminatorConfig]:
    """``tiny(config)`` is the same network with 8 to 12 channels and latents of length 8."""
    return _tiny
