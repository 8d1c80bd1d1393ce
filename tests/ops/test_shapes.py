import pytest
import torch

from styleforge.ops.shapes import assert_shape, require_shape


def test_shapes_that_fit_pass():
    x = torch.zeros(2, 3, 4)
    for shape in ([2, 3, 4], [None, 3, None], [None, None, None]):
        assert_shape(x, shape)
        require_shape("x", x, shape, "")


@pytest.mark.parametrize("shape", [[2, 3], [2, 3, 5], [2, 3, 4, 1], [None, 4, None]])
def test_shapes_that_differ_are_refused(refuses, shape):
    x = torch.zeros(2, 3, 4)
    with refuses("x: got shape [2, 3, 4]", "turn it around", "any" if None in shape else str(shape[-1])):
        require_shape("x", x, shape, "turn it around")
    with pytest.raises(AssertionError, match=r"got shape \[2, 3, 4\], expected"):
        assert_shape(x, shape)
