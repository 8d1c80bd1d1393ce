import io

import numpy as np
import pytest
import torch
from PIL import Image

from styleforge import images


def test_to_uint8_follows_the_official_formula():
    img = torch.linspace(-1.2, 1.2, 5001, dtype=torch.float64)
    expected = np.clip(img.numpy() * 127.5 + 128, 0, 255).astype(np.uint8)
    # float32 may fall on the other side of a step, a whole number that the formula cuts at
    difference = np.abs(images.to_uint8(img).numpy().astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    assert images.to_uint8(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0, 128, 255]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_uint8_survives_the_way_to_float_and_back(dtype):
    values = torch.arange(256, dtype=torch.uint8)
    img = images.from_uint8(values, dtype)
    assert img.dtype == dtype
    assert img[0] == -1 and img[-1] == 1
    assert torch.equal(images.to_uint8(img), values)


def test_to_uint8_takes_images_that_need_gradients():
    assert images.to_uint8(torch.zeros(1, 3, 2, 2, requires_grad=True)).dtype == torch.uint8


def test_grid_runs_left_to_right_then_down_and_pads_with_white():
    cells = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 2, 4)
    sheet = images.grid(cells, columns=3, padding=1)
    assert sheet.shape == (3, 2 * 3 - 1, 3 * 5 - 1)
    assert sheet[0, 0].tolist() == [0] * 4 + [255] + [1] * 4 + [255] + [2] * 4
    assert sheet[0, 2].tolist() == [255] * 14
    assert sheet[0, 3].tolist() == [3] * 4 + [255] + [4] * 4 + [255] * 5  # the missing cell is white


@pytest.mark.parametrize(
    ("num", "height", "width", "columns"), [(16, 8, 8, 4), (12, 8, 4, 5), (1, 8, 8, 1), (2, 2, 9, 1)]
)
def test_grid_is_nearly_square_by_default(num, height, width, columns):
    sheet = images.grid(torch.zeros(num, 3, height, width, dtype=torch.uint8))
    assert sheet.shape == (3, -(-num // columns) * height, columns * width)


def test_grid_of_nothing_is_refused(refuses):
    with refuses("at least one"):
        images.grid(torch.zeros(0, 3, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_the_rgb_view_is_the_picture_over_white(channels, mode):
    x = torch.randint(0, 256, (2, channels, 9, 11), dtype=torch.uint8)
    x[0, -1], x[1, -1] = 0, 255
    view = images.rgb_view(x)
    assert view.shape == (2, 3, 9, 11) and view.dtype == torch.uint8
    for image, seen in zip(x, view, strict=True):
        picture = images.to_pil(image)
        assert picture.mode == mode
        white = Image.new("RGBA", picture.size, "white")
        expected = np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")).astype(int)
        assert np.abs(expected - seen.permute(1, 2, 0).numpy()).max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_rgb_view_of_floats_agrees_with_that_of_bytes_and_is_differentiable(channels):
    img = torch.rand(2, channels, 5, 6) * 2 - 1
    bytes_first = images.rgb_view(images.to_uint8(img)).int()
    assert (images.to_uint8(images.rgb_view(img)).int() - bytes_first).abs().max() <= 2
    assert torch.autograd.gradcheck(images.rgb_view, img.double().requires_grad_())


def test_more_channels_have_no_rgb_view(refuses):
    for channels in (0, 5):
        with refuses(f"{channels} channels", "RGBA"):
            images.rgb_view(torch.zeros(1, channels, 2, 2))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA"), (7, "RGB")])
def test_png_keeps_every_pixel_of_what_it_can_show(tmp_path, channels, mode):
    image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    path = tmp_path / "made" / "on the way" / "x.png"
    images.save(image, path)
    with Image.open(path) as picture:
        assert picture.mode == mode
        pixels = np.asarray(picture).reshape(5, 7, -1).transpose(2, 0, 1)
    assert np.array_equal(pixels, image[: 3 if channels > 4 else channels].numpy())


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGB"), (7, "RGB")])
def test_jpeg_shows_alpha_over_white_and_the_first_three_of_many_channels(tmp_path, channels, mode):
    images.save(torch.full((channels, 8, 8), 99, dtype=torch.uint8), tmp_path / "x.jpg")
    alpha = 99 / 255 if channels in (2, 4) else 1
    with Image.open(tmp_path / "x.jpg") as picture:
        assert picture.mode == mode
        assert np.abs(np.asarray(picture) - (99 * alpha + 255 * (1 - alpha))).max() <= 2


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".gif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_encoding_gives_what_saving_writes(tmp_path, suffix, channels):
    image = torch.randint(0, 256, (channels, 9, 7), dtype=torch.uint8)
    images.save(image, tmp_path / f"x{suffix}")
    assert images.encode(image, suffix) == (tmp_path / f"x{suffix}").read_bytes()


def test_a_png_can_be_left_uncompressed():
    image = torch.zeros(3, 50, 40, dtype=torch.uint8)
    data = images.encode(image, ".png", compress=False)
    assert len(data) > 50 * 40 * 3 > len(images.encode(image, ".png"))
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (40, 50) and not np.asarray(picture).any()


def test_save_grid_writes_one_picture_of_all_images(tmp_path):
    images.save_grid(torch.zeros(6, 3, 4, 4), tmp_path / "grid.png", columns=3, padding=2)
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (3 * 6 - 2, 2 * 6 - 2)
        assert picture.getpixel((0, 0)) == (128, 128, 128)
