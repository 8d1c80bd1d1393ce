"""Shape checks: `assert_shape` for programmers, inside; `require_shape` for users, at the doors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def _matches(x: Tensor, shape: Sequence[int | None]) -> bool:
    return x.ndim == len(shape) and all(want is None or have == want for have, want in zip(x.shape, shape, strict=True))


def _describe(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def assert_shape(x: Tensor, shape: Sequence[int | None]) -> None:
    """Asserts that a tensor has a shape; None in ``shape`` stands for any size."""
    assert _matches(x, shape), f"got shape {list(x.shape)}, expected {_describe(shape)}"


def require_shape(name: str, x: Tensor, shape: Sequence[int | None], mend: str) -> None:
    """Checks a tensor that a user hands in.

    Args:
        name: The argument's name, for the message.
        x: The tensor.
        shape: Expected sizes; None stands for any size.
        mend: What the user can do about it, for the message.

    Raises:
        ValueError: The shape differs; says what came, what was expected and how to mend it.
    """
    if not _matches(x, shape):
        raise ValueError(f"{name}: got shape {list(x.shape)}, expected {_describe(shape)}; {mend}")
