"""Transfer learning: taking over weights where they fit, and saying where they did not."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass(kw_only=True, slots=True)
class TransferReport:
    """What became of each tensor of a network."""

    copied: list[str] = field(default_factory=list)
    """Taken over as they were."""
    resized: list[str] = field(default_factory=list)
    """Of another size: the part that both have was taken over, the rest kept its fresh values."""
    fresh: list[str] = field(default_factory=list)
    """Not in the source: kept their fresh values."""
    left_out: list[str] = field(default_factory=list)
    """In the source alone."""

    def describe(self) -> str:
        """One line for people."""
        parts = [f"{len(self.copied)} tensors copied"]
        for title, names in (("resized", self.resized), ("fresh", self.fresh), ("left out", self.left_out)):
            if names:
                shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
                parts.append(f"{len(names)} {title} ({shown})")
        return "; ".join(parts)


@torch.no_grad()
def transfer(target: nn.Module, source: nn.Module) -> TransferReport:
    """Copies the tensors of one network into another, by name.

    Blocks are named by their resolution, so a network for larger pictures takes over the blocks that the smaller
    one has. Noise maps of another size stay fresh.

    Args:
        target: Changed in place.
        source: Where the weights come from.

    Returns:
        What was copied, resized, kept fresh and left out.
    """
    report = TransferReport()
    theirs = source.state_dict()
    mine = target.state_dict()
    for name, tensor in mine.items():
        other = theirs.get(name)
        if other is None or other.ndim != tensor.ndim or (other.shape != tensor.shape and "noise.const" in name):
            report.fresh.append(name)
        elif other.shape == tensor.shape:
            tensor.copy_(other)
            report.copied.append(name)
        else:
            part = tuple(slice(min(a, b)) for a, b in zip(tensor.shape, other.shape, strict=True))
            tensor[part] = other[part].to(tensor)
            report.resized.append(name)
    report.left_out = [name for name in theirs if name not in mine]
    return report
