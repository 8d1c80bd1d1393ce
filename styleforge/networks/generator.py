"""Generator: mapping network f and synthesis network g (Karras et al. 2019, Figure 1)."""
# Shapes: N batch, Z/W length of z/w, C length of a label or image channels, L number of ws, H W image size.

from __future__ import annotations

import torch
from torch import Tensor, nn

from styleforge.networks.config import GeneratorConfig
from styleforge.networks.mapping import MappingNetwork
from styleforge.networks.style_layers import StyleNorm
from styleforge.networks.synthesis import SynthesisNetwork


class Generator(nn.Module):
    """Makes images from latents: ``G(z)`` is ``G.synthesis(G.mapping(z))``.

    Args:
        config: What to build.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(config)
        self.synthesis = SynthesisNetwork(config)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "random",
        lod: float = 0.0,
    ) -> Tensor:
        """Makes images from latents.

        Args:
            z: [N, Z], usually standard normal.
            c: Labels [N, C]; None for an unconditional network.
            truncation_psi: 1 leaves w, 0 gives the mean image.
            truncation_cutoff: Number of layers that are truncated; None for all.
            noise_mode: ``random``, ``const`` (fixed maps: the same picture each time) or ``none``.
            lod: Level of detail of a progressive network; 0 is full resolution.

        Returns:
            img [N, C, H, W], about in [-1, 1].

        Raises:
            ValueError: An argument that this network cannot take.
        """
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)  # [N, L, W]
        img: Tensor = self.synthesis(ws, noise_mode=noise_mode, lod=lod)  # [N, C, H, W]
        return img

    @property
    def z_dim(self) -> int:
        """Length of z."""
        return self.config.z_dim

    @property
    def w_dim(self) -> int:
        """Length of w."""
        return self.config.w_dim

    @property
    def c_dim(self) -> int:
        """Length of a label; 0 for an unconditional network."""
        return self.config.c_dim

    @property
    def num_ws(self) -> int:
        """Number of w vectors that synthesis takes."""
        return self.config.num_ws

    @property
    def img_resolution(self) -> int | tuple[int, int]:
        """Side of the square images, or (height, width)."""
        return self.config.resolution

    @property
    def img_channels(self) -> int:
        """Channels of the images."""
        return self.config.img_channels

    @property
    def w_avg(self) -> Tensor:
        """[W]: the running mean of w, around which truncation works."""
        return self.mapping.w_avg

    @torch.no_grad()
    def clip_rho(self) -> None:
        """Brings the rho of PIN back into [0, 1]; nothing in networks without. Call it after an optimizer step."""
        for module in self.modules():
            if isinstance(module, StyleNorm):
                module.clip_rho()
