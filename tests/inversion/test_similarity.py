import pytest
import torch

from styleforge.inversion.similarity import psnr, ssim


def pairs(size, channels=3):
    torch.manual_seed(1)
    first = torch.randint(0, 256, (2, channels, *size), dtype=torch.uint8)
    noise = torch.randint(-30, 31, first.shape)
    return first, (first.int() + noise).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("size", [(16, 16), (24, 32), (12, 40)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_are_those_of_torchmetrics(size, channels):
    functional = pytest.importorskip("torchmetrics.functional.image")
    first, second = pairs(size, channels)
    for i in range(2):
        pair = first[i : i + 1].double(), second[i : i + 1].double()
        expected = functional.peak_signal_noise_ratio(*pair, data_range=255.0)
        assert psnr(first, second)[i] == pytest.approx(float(expected), rel=1e-6)
        # There, windows that reach over the border see a reflection; we, as the paper, leave them out.
        _, full = functional.structural_similarity_index_measure(*pair, data_range=255.0, return_full_image=True)
        assert ssim(first, second)[i] == pytest.approx(float(full[..., 5:-5, 5:-5].mean()), rel=1e-6)


def test_the_same_picture_is_as_alike_as_can_be():
    first, _ = pairs((4, 6))
    assert psnr(first, first).tolist() == [torch.inf] * 2
    assert torch.allclose(ssim(first, first), torch.ones(2).double())


def test_one_step_of_255_everywhere_is_48_db():
    black = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    assert psnr(black, black + 1).item() == pytest.approx(48.1308, abs=1e-4)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_other_shapes_are_refused(refuses, measure):
    with refuses("references", "[2, 3, 16, 16]"):
        measure(pairs((16, 16))[0], pairs((16, 24))[0])
