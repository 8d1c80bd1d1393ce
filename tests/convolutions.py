"""Convolutions of several kinds, and PyTorch's own gradient of their weight, which ours are compared with."""

import torch

CASES = [  # stride, padding, kernel size, image size
    (1, 1, 3, (5, 6)),
    (1, 0, 1, (4, 3)),
    (2, 0, 3, (7, 5)),
    (2, 0, 3, (6, 8)),  # the last row and column are not seen
    (2, 1, 3, (6, 5)),
    (3, 1, 3, (8, 8)),
]


def weight_gradient_of_pytorch(x, dy, padding, *, stride=1, k=3):
    """Of a weight [O, I, k, k], for an image x [N, I, H, W] and the gradient dy [N, O, h, w] of the result."""
    weight = x.new_zeros(dy.shape[1], x.shape[1], k, k)
    arguments = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [False, True, False]
    return torch.ops.aten.convolution_backward(dy, x, weight, None, *arguments)[1]
