"""A generator as a graph with plain inputs and outputs: mapping, synthesis, or both; traced for PyTorch or ONNX."""
# Shapes: N batch, Z/W length of z/w, C length of a label or image channels, L number of ws, h w noise map size.

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from styleforge.checkpoint import Checkpoint
from styleforge.convert.card import make_card
from styleforge.files import atomic_path
from styleforge.networks import Generator

Part = Literal["whole", "mapping", "synthesis"]
Noise = Literal["const", "input", "none"]


class MappingGraph(nn.Module):
    """(z, truncation_psi, c) -> ws.

    Args:
        G: The generator.
        truncation_cutoff: Number of layers that are truncated; None for all.
    """

    def __init__(self, G: Generator, truncation_cutoff: int | None = None) -> None:
        super().__init__()
        self.mapping, self.num_ws = G.mapping, G.num_ws  # not G, whose other weights would go into the file
        self.cutoff = self.num_ws if truncation_cutoff is None else min(truncation_cutoff, self.num_ws)

    def forward(self, z: Tensor, truncation_psi: Tensor, c: Tensor | None = None) -> Tensor:
        """Z [N, Z], truncation_psi [], c [N, C] -> ws [N, L, W]."""
        w = self.mapping.map(z, c)  # [N, W]
        truncated = self.mapping.w_avg + (w - self.mapping.w_avg) * truncation_psi
        return torch.stack([truncated] * self.cutoff + [w] * (self.num_ws - self.cutoff), dim=1)  # [N, L, W]


class SynthesisGraph(nn.Module):
    """(ws, noise maps) -> img.

    Args:
        G: The generator.
        noise: ``const`` takes the network's own maps, ``input`` the caller's, ``none`` leaves noise out.
    """

    def __init__(self, G: Generator, noise: Noise) -> None:
        super().__init__()
        self.synthesis, self.mode = G.synthesis, "none" if noise == "none" else "const"

    def forward(self, ws: Tensor, noise: list[Tensor] | None = None) -> Tensor:
        """Ws [N, L, W], noise [N, 1, h, w] each -> img [N, C, H, W]."""
        img: Tensor = self.synthesis(ws, noise_mode=self.mode, noise=noise)
        return img


class WholeGraph(nn.Module):
    """(z, truncation_psi, c, noise maps) -> img.

    Args:
        G: The generator.
        noise: As `SynthesisGraph` takes it.
        truncation_cutoff: As `MappingGraph` takes it.
    """

    def __init__(self, G: Generator, noise: Noise, truncation_cutoff: int | None = None) -> None:
        super().__init__()
        self.mapping, self.synthesis = MappingGraph(G, truncation_cutoff), SynthesisGraph(G, noise)

    def forward(
        self, z: Tensor, truncation_psi: Tensor, c: Tensor | None = None, noise: list[Tensor] | None = None
    ) -> Tensor:
        """Z [N, Z], truncation_psi [], c [N, C], noise [N, 1, h, w] each -> img [N, C, H, W]."""
        img: Tensor = self.synthesis(self.mapping(z, truncation_psi, c), noise)
        return img


@dataclass(kw_only=True, slots=True)
class Graph:
    """A module for an exporter, with all that it wants to know."""

    module: nn.Module
    """What is exported."""
    inputs: dict[str, Any]
    """Name of each argument -> an example with a batch of 2."""
    output: str
    """``ws`` or ``img``."""

    @property
    def names(self) -> list[str]:
        """The inputs' names, one for each tensor: noise maps are ``noise0``, ``noise1``, …."""
        return [
            f"{name}{i}" if isinstance(value, list) else name
            for name, value in self.inputs.items()
            for i in range(len(value) if isinstance(value, list) else 1)
        ]

    @property
    def tensors(self) -> list[Tensor]:
        """The example's tensors, in the order of `names`."""
        return [x for value in self.inputs.values() for x in (value if isinstance(value, list) else [value])]

    @property
    def dynamic_shapes(self) -> dict[str, Any]:
        """Which dimensions may change: the batch of everything but the truncation."""
        batch = torch.export.Dim("batch", min=1)

        def shape(value: Any) -> Any:
            if isinstance(value, list):
                return [shape(x) for x in value]
            return {0: batch} if value.ndim else None

        return {name: shape(value) for name, value in self.inputs.items()}


def make_graph(
    G: Generator, part: Part = "whole", noise: Noise = "const", truncation_cutoff: int | None = None
) -> Graph:
    """Prepares a generator for an exporter.

    Args:
        G: The generator, in float32; progressive ones are taken at full resolution.
        part: ``mapping``, ``synthesis``, or ``whole`` for both.
        noise: ``const``, ``input`` or ``none``; see `SynthesisGraph`.
        truncation_cutoff: Number of layers that are truncated; None for all.

    Raises:
        ValueError: An unknown part or kind of noise.
    """
    for name, value, choices in (
        ("part", part, ("whole", "mapping", "synthesis")),
        ("noise", noise, ("const", "input", "none")),
    ):
        if value not in choices:
            raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(choices)}; choose one of these")
    device = G.w_avg.device
    latents: dict[str, Any] = {"z": torch.randn(2, G.z_dim, device=device), "truncation_psi": torch.tensor(1.0)}
    if G.c_dim:
        latents["c"] = torch.eye(G.c_dim, device=device)[torch.arange(2) % G.c_dim]
    maps = [torch.randn(2, 1, *one.const.shape, device=device) for one in G.synthesis.noise_inputs()]
    given = {"noise": maps} if noise == "input" and maps else {}
    module: nn.Module
    if part == "mapping":
        module, inputs = MappingGraph(G, truncation_cutoff), latents
    elif part == "synthesis":
        module, inputs = SynthesisGraph(G, noise), {"ws": torch.randn(2, G.num_ws, G.w_dim, device=device)} | given
    else:
        module, inputs = WholeGraph(G, noise, truncation_cutoff), latents | given
    return Graph(module=module.eval(), inputs=inputs, output="ws" if part == "mapping" else "img")


def trace(graph: Graph) -> torch.export.ExportedProgram:
    """A graph as a program of PyTorch's operators, for batches of any size."""
    with torch.no_grad():  # strict: lengths of tensors stay symbols
        return torch.export.export(
            graph.module, (), kwargs=graph.inputs, dynamic_shapes=graph.dynamic_shapes, strict=True
        )


def export_program(
    G: Generator,
    path: str | Path,
    *,
    part: Part = "whole",
    noise: Noise = "const",
    truncation_cutoff: int | None = None,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Writes a generator for ``torch.export.load``, which needs PyTorch but nothing of ours.

    Args:
        G: The generator.
        path: Target file, ending with ``.pt2``.
        part: As `make_graph` takes it.
        noise: As `make_graph` takes it.
        truncation_cutoff: As `make_graph` takes it.
        card: Facts that go into the file as ``card.json``; None for those about the network alone.

    Raises:
        ValueError: An unknown part or kind of noise.
        OSError: The file cannot be written.
    """
    program = trace(make_graph(G, part, noise, truncation_cutoff))
    card = make_card(Checkpoint(G_ema=G)) if card is None else card
    buffer = io.BytesIO()  # on a full disk, PyTorch's own writing ends the process
    torch.export.save(program, buffer, extra_files={"card.json": json.dumps(dict(card), indent=1)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
