"""Mapping network f: z -> w (Karras et al. 2019, Section 2; Karras et al. 2020, Appendix B)."""
# Shapes: N batch, Z/W length of z/w, C length of a label, L number of ws.

from __future__ import annotations

import torch
from torch import Tensor, nn

from styleforge.networks.config import Convention, GeneratorConfig
from styleforge.networks.layers import FullyConnected
from styleforge.ops import normalize_2nd_moment
from styleforge.ops.shapes import require_shape


def require_labels(c: Tensor | None, num: int, c_dim: int) -> Tensor | None:
    """Checks labels against a network: [N, C] for a conditional one, None or [N, 0] for an unconditional one.

    Raises:
        ValueError: Labels are missing, superfluous, or of another shape.
    """
    if c_dim == 0:
        if c is not None and c.numel():
            raise ValueError(
                f"c: got labels of shape {list(c.shape)}, expected none, since this network is unconditional; "
                "leave c out, or use a network with c_dim > 0"
            )
        return None
    if c is None:
        raise ValueError(
            f"c: got no labels, expected shape [{num}, {c_dim}], since this network is conditional; "
            "hand in one row per sample (one-hot for classes)"
        )
    require_shape("c", c, [num, c_dim], "hand in one row per sample (one-hot for classes)")
    return c


class DenseStack(nn.Module):
    """The fully connected layers ``fc0, fc1, …`` of a mapping network, each with leaky ReLU."""

    def __init__(self, features: list[int], *, convention: Convention, lr_multiplier: float) -> None:
        super().__init__()
        self.num_layers = len(features) - 1
        for i in range(self.num_layers):
            layer = FullyConnected(
                features[i], features[i + 1], activation="lrelu", convention=convention, lr_multiplier=lr_multiplier
            )
            self.add_module(f"fc{i}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """[N, features[0]] -> [N, features[-1]]."""
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x


class MappingNetwork(DenseStack):
    """Normalises z, joins the label to it, and sends both through the fully connected layers.

    Args:
        config: The generator's config.
    """

    w_avg: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        label_dim = 0
        if config.c_dim and config.mapping_layers:
            label_dim = config.w_dim if config.label_mode == "embedding" else config.z_dim
        width = config.mapping_features or config.w_dim
        features = [config.z_dim + label_dim] + [width] * (config.mapping_layers - 1) + [config.w_dim]
        super().__init__(
            features if config.mapping_layers else [config.w_dim],
            convention=config.convention,
            lr_multiplier=config.mapping_lr_multiplier,
        )
        self.config = config
        if config.c_dim:
            matrix = config.label_mode == "matrix"
            self.embed: nn.Module = (
                FullyConnected(config.c_dim, config.z_dim, bias=False, weight_gain=config.c_dim**0.5)
                if matrix  # no equalized learning rate: the factor cancels 1 / sqrt(fan-in)
                else FullyConnected(config.c_dim, config.w_dim)
            )
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def embed_inputs(self, z: Tensor, c: Tensor | None) -> Tensor:
        """Normalises z [N, Z] and joins the label c [N, C] or None: [N, input of the first layer]."""
        config = self.config
        if c is None:
            return normalize_2nd_moment(z)
        y = self.embed(c.to(z.dtype))
        if config.mapping_layers == 0:  # Our own choice, the papers have none: add, and keep the length at sqrt(W).
            return normalize_2nd_moment(normalize_2nd_moment(z) + normalize_2nd_moment(y))
        if config.label_mode == "matrix":
            return normalize_2nd_moment(torch.cat([z, y], dim=1))
        return torch.cat([normalize_2nd_moment(z), normalize_2nd_moment(y)], dim=1)

    def map(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """One w per sample, neither repeated nor truncated.

        Args:
            z: [N, Z].
            c: [N, C], or None for an unconditional network.

        Returns:
            w [N, W].

        Raises:
            ValueError: z or c have another shape.
        """
        require_shape("z", z, [None, self.config.z_dim], "draw z with torch.randn(N, G.z_dim)")
        c = require_labels(c, len(z), self.config.c_dim)
        w: Tensor = super().forward(self.embed_inputs(z, c))
        return w

    def forward(
        self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0, truncation_cutoff: int | None = None
    ) -> Tensor:
        """Maps z to the ws of every layer, drawn towards the mean w (truncation, Wulff & Torralba Eq. 5).

        Args:
            z: [N, Z], usually standard normal.
            c: [N, C], or None for an unconditional network.
            truncation_psi: 1 leaves w, 0 gives the mean w.
            truncation_cutoff: Number of layers, from the first, that are truncated; None for all.

        Returns:
            ws [N, L, W].

        Raises:
            ValueError: z or c have another shape.
        """
        ws = self.map(z, c)[:, None].repeat(1, self.config.num_ws, 1)  # [N, L, W], no view: people mix it in place
        if truncation_psi == 1:
            return ws
        cutoff = ws.shape[1] if truncation_cutoff is None else truncation_cutoff
        if cutoff < 0:
            raise ValueError(f"truncation_cutoff: got {cutoff}, expected 0 or more layers; None truncates all")
        truncated = torch.lerp(self.w_avg.to(ws.dtype).expand_as(ws), ws, truncation_psi)
        return torch.cat([truncated[:, :cutoff], ws[:, cutoff:]], dim=1)

    @torch.no_grad()
    def update_w_avg(self, w: Tensor, decay: float = 0.995) -> None:
        """Moves the running mean of w towards the mean of a batch w [N, W]; the training loop calls it."""
        self.w_avg.lerp_(w.detach().mean(0).to(self.w_avg.dtype), 1 - decay)


class LabelMapping(DenseStack):
    """Embeds a label for the discriminator's projection: normalised embedding, then fully connected layers."""

    def __init__(self, c_dim: int, features: int, num_layers: int, *, convention: Convention) -> None:
        super().__init__([features] * (num_layers + 1), convention=convention, lr_multiplier=0.01)
        self.embed = FullyConnected(c_dim, features)

    def forward(self, c: Tensor) -> Tensor:
        """[N, C] -> [N, features]."""
        return super().forward(normalize_2nd_moment(self.embed(c)))
