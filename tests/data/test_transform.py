import numpy as np
import pytest
from PIL import Image

from styleforge.data.transform import Recipe, center_crop, resize, with_channels

RNG = np.random.default_rng(0)
RGBA = Image.fromarray(RNG.integers(0, 256, (24, 36, 4), dtype=np.uint8))
DEFAULTS = {
    "resolution": None,
    "transform": None,
    "resize_filter": "lanczos",
    "channels": 3,
    "background": (255, 255, 255),
}


def recipe(**settings):
    return Recipe(**(DEFAULTS | settings))


def pixels(image):
    return np.asarray(image).reshape(image.height, image.width, -1)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(12, 12), (24, 4), (1, 1), (8, 18)])
def test_box_by_whole_factors_is_the_rounded_mean(mode, size):
    image = RGBA.convert(mode)
    height, width = size
    blocks = pixels(image).reshape(height, 24 // height, width, 36 // width, -1).astype(np.float64)
    expected = np.floor(blocks.mean((1, 3)) + 0.5)
    assert (pixels(resize(image, size, "box")) == expected).all()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_box_weighs_colours_with_their_alpha(mode):
    image = RGBA.convert(mode)
    blocks = pixels(image).reshape(6, 4, 9, 4, -1).astype(np.float64)
    alpha = blocks[..., -1:]
    colour = (blocks[..., :-1] * alpha).sum((1, 3)) / alpha.sum((1, 3))
    expected = np.concatenate([colour, alpha.mean((1, 3))], axis=-1)
    assert (pixels(resize(image, (6, 9), "box")) == np.floor(expected + 0.5)).all()


def test_box_of_nothing_but_transparency_is_transparent():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (pixels(resize(clear, (4, 4), "box"))[..., 3] == 0).all()


@pytest.mark.parametrize("resize_filter", ["lanczos", "box", "bicubic", "bilinear"])
def test_filters_keep_flat_colour_and_the_same_size(resize_filter):
    flat = Image.new("RGB", (30, 20), (10, 200, 90))
    assert (pixels(resize(flat, (7, 9), resize_filter)) == (10, 200, 90)).all()
    assert resize(flat, (20, 30), resize_filter) is flat


def test_center_crop_takes_the_middle():
    image = RGBA.convert("RGB")
    assert (pixels(center_crop(image, (1, 1))) == pixels(image)[:, 6:30]).all()
    assert (pixels(center_crop(image, (12, 36))) == pixels(image)[6:18]).all()
    assert (pixels(center_crop(image, (2, 3))) == pixels(image)).all()
    tall = image.transpose(Image.Transpose.ROTATE_90)
    assert (pixels(center_crop(tall, (64, 64))) == pixels(tall)[6:30]).all()


@pytest.mark.parametrize("transform", [None, "center-crop", "center-crop-wide", "pad"])
@pytest.mark.parametrize("resolution", [(8, 8), (12, 16), (7, 16), (64, 64)])
def test_every_picture_gets_the_wanted_size(transform, resolution):
    for shape in ((24, 36), (36, 24), (1, 50), (50, 1), (8, 8)):
        fit = recipe(resolution=resolution, transform=transform)
        image = fit.apply(Image.fromarray(np.zeros((*shape, 3), np.uint8)))
        assert (image.height, image.width) == fit.output_size


def test_center_crop_wide_has_black_bars():
    fit = recipe(resolution=(12, 16), transform="center-crop-wide")
    image = pixels(fit.apply(Image.new("RGB", (40, 40), (200, 100, 50))))
    assert fit.output_size == (16, 16)
    assert (image[2:14] == (200, 100, 50)).all()
    assert not image[:2].any()
    assert not image[14:].any()


def test_padding_shows_the_background_and_is_clear_where_alpha_is_kept():
    wide = Image.new("RGB", (40, 20), (200, 100, 50))
    image = pixels(recipe(resolution=(16, 16), transform="pad", background=(1, 2, 3)).apply(wide))
    assert (image[4:12] == (200, 100, 50)).all()
    assert (image[:4] == (1, 2, 3)).all()
    assert (image[12:] == (1, 2, 3)).all()
    image = pixels(recipe(resolution=(16, 16), transform="pad", channels=4).apply(wide))
    assert (image[4:12, :, 3] == 255).all()
    assert not image[:4, :, 3].any()


def test_lost_alpha_shows_the_background():
    values = pixels(RGBA).astype(np.float64)
    alpha = values[..., 3:] / 255
    expected = values[..., :3] * alpha + np.array([10, 20, 30]) * (1 - alpha)
    assert np.abs(pixels(with_channels(RGBA, 3, (10, 20, 30))) - expected).max() <= 1
    gray = with_channels(RGBA, 1, (10, 20, 30))
    assert np.abs(pixels(gray)[..., 0] - expected @ [0.299, 0.587, 0.114]).max() <= 1.5


def test_channels_are_added_without_loss():
    gray = RGBA.convert("L")
    assert (pixels(with_channels(gray, 3, (0, 0, 0))) == pixels(gray)).all()
    assert (pixels(with_channels(gray, 4, (0, 0, 0)))[..., 3] == 255).all()
    assert with_channels(RGBA, "keep", (0, 0, 0)) is RGBA


def test_enlarging_is_noticed():
    image = Image.new("RGB", (40, 20))
    assert recipe(resolution=(32, 32), transform="center-crop").enlarges(image)
    assert not recipe(resolution=(20, 20), transform="center-crop").enlarges(image)
    assert not recipe(resolution=(32, 32), transform="pad").enlarges(image)
    assert recipe(resolution=(64, 64), transform="pad").enlarges(image)
    assert not recipe().enlarges(image)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transform": "zoom"}, "--transform: got zoom, expected one of"),
        ({"transform": "pad"}, "--transform: got pad without a size, expected --resolution=WxH"),
        ({"transform": "center-crop-wide", "resolution": (16, 12)}, "expected a width of at least the height"),
        ({"resize_filter": "magic"}, "--resize-filter: got magic"),
        ({"channels": 2}, "--channels: got 2"),
        ({"resolution": (0, 4)}, "expected positive numbers"),
        ({"background": (0, 0, 256)}, "--background: got"),
    ],
)
def test_settings_that_make_no_sense_are_said(settings, message):
    with pytest.raises(ValueError, match=message):
        recipe(**settings)
