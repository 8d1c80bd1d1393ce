"""What the layers of a synthesis network put out: seen, or changed, while pictures are made.

Both are forward hooks that live as long as a ``with`` block; after it the network is as it was, whatever happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from styleforge.networks import Generator
from styleforge.networks.sizes import block_name
from styleforge.networks.style_layers import ToRGB


def layer_names(G: Generator, lod: float = 0.0) -> list[str]:
    """The style layers that take part at a level of detail, from the base grid to the image: ``b4.conv1`` and so on."""
    return [
        f"{block_name(block.size)}.{'conv1' if layer is block.conv1 else 'conv0'}"
        for block in G.synthesis.active_blocks(lod)
        for layer in block.style_layers
    ]


def find_layer(G: Generator, name: str) -> nn.Module:
    """The part of the synthesis network that has a name.

    Args:
        G: The generator.
        name: A style layer ``b8.conv0``; a block ``b8``, whose output is its features; or a tRGB ``b8.torgb``.

    Raises:
        ValueError: There is none.
    """
    parts = {name: part for name, part in G.synthesis.named_modules() if name.count(".") < 2}
    blocks = [block_name(block.size) for block in G.synthesis.blocks]
    names = [*layer_names(G), *blocks, *(name for name, part in parts.items() if isinstance(part, ToRGB))]
    if name not in names:
        raise ValueError(
            f"layer: got {name!r}, expected one of {', '.join(layer_names(G))}, a block such as {blocks[-1]}, or a "
            f"tRGB such as {names[-1]} (--layer)"
        )
    return parts[name]


@contextmanager
def record(G: Generator, layers: Iterable[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """Keeps what layers put out while the block runs.

    ::

        with record(G, ["b8.conv1", "b8.torgb"]) as activations:
            G.synthesis(ws)
        activations["b8.conv1"]  # [N, C, 8, 8]

    Args:
        G: The generator.
        layers: Names as `find_layer` takes them; None for all style layers.

    Yields:
        A dict that each call of ``G.synthesis`` fills anew, in order of computation: [N, C, h, w] for each layer that
        took part, with its gradients, if it has any. Enter `alter` first to see altered features.

    Raises:
        ValueError: There is no such layer.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
            seen[name] = output

        return hook

    parts = {name: find_layer(G, name) for name in (layer_names(G) if layers is None else layers)}
    handles = [G.synthesis.register_forward_pre_hook(lambda module, arguments: seen.clear())]
    handles += [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def alter(G: Generator, layer: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Changes what a layer puts out while the block runs.

    Args:
        G: The generator.
        layer: Its name, as `find_layer` takes it.
        change: Takes the output [N, C, h, w] and returns a new tensor of its shape and dtype in its place.

    Raises:
        ValueError: There is no such layer.
    """
    handle = find_layer(G, layer).register_forward_hook(lambda module, arguments, output: change(output))
    try:
        yield
    finally:
        handle.remove()
