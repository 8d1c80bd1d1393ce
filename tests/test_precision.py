import torch

from styleforge.precision import exact_float32


def test_float32_is_exact_inside_and_as_before_outside():
    cudnn, before = torch.backends.cudnn, torch.backends.cudnn.allow_tf32
    with exact_float32():
        assert not hasattr(cudnn, "conv") or cudnn.conv.fp32_precision == "ieee"
    assert cudnn.allow_tf32 == before


def test_functions_may_be_decorated():
    @exact_float32()
    def precision():
        return torch.backends.cudnn.conv.fp32_precision if hasattr(torch.backends.cudnn, "conv") else "ieee"

    assert precision() == "ieee"
