"""Image sizes that the networks can make: a base grid of at most 8×8, doubled n times.

1024×1024 is 4×4 doubled eight times, 512×384 is 4×3 doubled seven times, 320×448 is 5×7 doubled six times.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass

MAX_BASE = 8
"""Largest side of a base grid."""


@dataclass(frozen=True, slots=True)
class SizePlan:
    """How an image size is reached from its base grid."""

    base: tuple[int, int]
    """Height and width of the constant input."""
    doublings: int
    """Number of doublings n, at least 1."""

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each block, from the base grid to the image: n + 1 entries."""
        height, width = self.base
        return [(height << i, width << i) for i in range(self.doublings + 1)]

    @property
    def nominal(self) -> list[int]:
        """The r of "channels at resolution r" for each block: 4, 8, 16, …; the true side for powers of two."""
        return [4 << i for i in range(self.doublings + 1)]


def block_name(size: tuple[int, int]) -> str:
    """Name of the block that works at a size: ``b64`` for 64×64, ``b64x48`` for 64 high and 48 wide."""
    height, width = size
    return f"b{height}" if height == width else f"b{height}x{width}"


def format_size(size: tuple[int, int]) -> str:
    """A size for messages: height×width."""
    return f"{size[0]}×{size[1]}"


def _plan(height: int, width: int) -> SizePlan | None:
    """The plan of a size, or None if it has none."""
    doublings = 0
    # Halve while the grid stays whole and its longer side at 4 or above, so that squares of 2^k start at 4×4; but once
    # in any case, as for 6×6.
    while height % 2 == 0 and width % 2 == 0 and (max(height, width) >= 8 or doublings == 0):
        height, width, doublings = height // 2, width // 2, doublings + 1
    if min(height, width) < 1 or max(height, width) > MAX_BASE or doublings < 1:
        return None
    return SizePlan((height, width), doublings)


def nearest_legal_sizes(height: int, width: int, count: int = 3) -> list[tuple[int, int]]:
    """The legal sizes closest to a wanted one.

    Closeness is the sum of the relative changes of height and width.

    Args:
        height: Wanted height in pixels.
        width: Wanted width in pixels.
        count: How many sizes to return.

    Returns:
        Up to ``count`` (height, width) pairs, the closest first; a legal input comes back as the first.
    """
    height, width = max(height, 1), max(width, 1)
    candidates = {
        (h << n, w << n)
        for n in range(1, max(height, width).bit_length() + 2)
        for h in range(1, MAX_BASE + 1)
        for w in range(1, MAX_BASE + 1)
        if _plan(h << n, w << n) is not None
    }
    distance = {(h, w): abs(h - height) / height + abs(w - width) / width for h, w in candidates}
    return sorted(candidates, key=lambda size: (distance[size], size))[:count]


def size_plan(resolution: int | tuple[int, int]) -> SizePlan:
    """Finds the base grid and the number of doublings of an image size.

    Args:
        resolution: Side of a square, or (height, width), in pixels.

    Returns:
        The plan; its base grid's longer side is between 4 and 8.

    Raises:
        ValueError: No size, or no base grid of at most 8×8 doubled at least once; names the nearest legal sizes.
    """
    sides = tuple(resolution) if isinstance(resolution, tuple | list) else (resolution, resolution)
    whole = [isinstance(side, numbers.Integral) and not isinstance(side, bool) and side > 0 for side in sides]
    if whole != [True, True]:
        raise ValueError(f"resolution: got {resolution!r}, expected a side or (height, width) in whole pixels, as 256")
    height, width = map(int, sides)
    plan = _plan(height, width)
    if plan is None:
        near = ", ".join(format_size(size) for size in nearest_legal_sizes(height, width))
        raise ValueError(
            f"resolution: got {format_size((height, width))} (height×width), expected a base grid of at most "
            f"{MAX_BASE}×{MAX_BASE} doubled at least once; the nearest legal sizes are {near}"
        )
    return plan
