"""Batches of images in pieces that caches hold, for work on CPUs that makes several numbers of each pixel."""

from __future__ import annotations

from collections.abc import Iterator


def pieces(num: int, rows: int, columns: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Cuts a batch of images into runs of whole images, or where these are too large, of whole rows of one.

    Args:
        num: Number of images.
        rows: Rows of each.
        columns: Pixels of a row.
        size: Pixels of a piece, at the most, but at least one row.

    Yields:
        (which images, which of their rows), in order.
    """
    rows_at_a_time = max(min(size // columns, rows), 1)
    images = max(size // (rows * columns), 1)
    for first in range(0, num, images):
        for row in range(0, rows, rows_at_a_time):
            yield slice(first, min(first + images, num)), slice(row, min(row + rows_at_a_time, rows))
