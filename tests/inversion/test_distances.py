import pytest
import torch

from styleforge.features import load_distance
from styleforge.inversion import choose_distance, distances
from styleforge.networks import Discriminator, DiscriminatorConfig


@pytest.fixture(scope="module")
def D():
    return Discriminator(DiscriminatorConfig(resolution=16, channel_max=4, channel_base=64))


@pytest.mark.parametrize(
    ("has_weights", "has_d", "name"),
    [(True, True, "lpips"), (True, False, "lpips"), (False, True, "pixel+discriminator"), (False, False, "random-vgg")],
)
def test_auto_takes_the_best_that_needs_no_download(monkeypatch, D, has_weights, has_d, name):
    monkeypatch.setattr(distances, "available", lambda *_: has_weights)
    monkeypatch.setattr(distances, "load_distance", lambda name, **_: name)
    assert choose_distance("auto", D=D if has_d else None) == name


def test_a_distance_is_taken_by_name_or_as_it_is(D):
    assert choose_distance("random-vgg", D=D).name == "random-vgg"
    made = load_distance("pixel+discriminator", D=D)
    assert choose_distance(made) is made
    assert choose_distance("pixel+discriminator", D=D).checksum == made.checksum


def test_lpips_without_weights_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("STYLEFORGE_WEIGHTS", raising=False)
    with pytest.raises((OSError, ImportError)):
        choose_distance("lpips", offline=True)


def test_what_does_not_exist_is_refused(refuses):
    with refuses("distance: got 'ssim'", "--distance"):
        choose_distance("ssim")
    with refuses("without a discriminator", "--distance random-vgg"):
        choose_distance("pixel+discriminator")


def test_large_images_are_averaged_down_to_the_longer_side():
    img = torch.randn(1, 3, 512, 384)
    small = distances.shrink(img, 256)
    assert small.shape == (1, 3, 256, 192)
    assert torch.allclose(small, torch.nn.functional.avg_pool2d(img, 2), atol=1e-6)
    assert distances.shrink(img, 512) is img
    assert distances.shrink(torch.randn(1, 3, 1024, 2), 256).shape == (1, 3, 256, 1)
