"""Forward-mode differentiation: who computes a derivative along with a value must be asked to."""

from __future__ import annotations

from torch import Tensor
from torch.autograd import forward_ad


def has_tangent(*tensors: Tensor | None) -> bool:
    """Whether any of the tensors carries a derivative that PyTorch's own operations would take on with them.

    The quick ways of the ops know nothing of it: a kernel would lose it without a word.
    """
    return any(tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)
