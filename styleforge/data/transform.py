"""How a picture is made to fit a dataset: channels, crop, resize."""
# Shapes: H W size of the picture, h w size wanted, C channels.

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from styleforge.data.decode import channels_of

Transform = Literal["center-crop", "center-crop-wide", "pad"]
ResizeFilter = Literal["lanczos", "box", "bicubic", "bilinear"]
Channels = Literal[1, 3, 4, "keep"]

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What happens to every picture of a dataset."""

    resolution: tuple[int, int] | None
    """(height, width) wanted; None leaves the size as it is."""
    transform: Transform | None
    """``center-crop``: cut to the wanted proportions, then resize. ``center-crop-wide``: the same, then black bars
    above and below make it a square of the wanted width. ``pad``: resize to fit inside, then fill up with the
    background. None: resize, stretching if proportions differ."""
    resize_filter: ResizeFilter
    """``box`` is the exact mean of whole blocks where the factor is whole."""
    channels: Channels
    """1 gray, 3 RGB, 4 RGBA, or ``keep``."""
    background: tuple[int, int, int]
    """RGB colour, 0 to 255, behind transparent pixels that lose their alpha channel, and around padded pictures."""

    def __post_init__(self) -> None:
        _expect_one_of("--transform", self.transform, (None, "center-crop", "center-crop-wide", "pad"))
        _expect_one_of("--resize-filter", self.resize_filter, tuple(FILTERS))
        _expect_one_of("--channels", self.channels, (1, 3, 4, "keep"))
        if self.transform is not None and self.resolution is None:
            raise ValueError(f"--transform: got {self.transform} without a size, expected --resolution=WxH with it")
        if self.resolution is not None and min(self.resolution) < 1:
            raise ValueError(f"--resolution: got {self.resolution} (height, width), expected positive numbers")
        if self.transform == "center-crop-wide" and self.resolution is not None:
            height, width = self.resolution
            if height > width:
                raise ValueError(
                    f"--transform: got center-crop-wide for {width} wide and {height} high, expected a width of at "
                    f"least the height; use center-crop"
                )
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise ValueError(f"--background: got {self.background}, expected three numbers from 0 to 255")

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(height, width) of the result; None where pictures keep theirs."""
        if self.resolution is None or self.transform != "center-crop-wide":
            return self.resolution
        return self.resolution[1], self.resolution[1]

    def apply(self, image: Image.Image) -> Image.Image:
        """Turns a decoded picture (mode L, LA, RGB or RGBA) into what the dataset stores."""
        image = with_channels(image, self.channels, self.background)
        if self.resolution is None:
            return image
        if self.transform == "pad":
            return self._padded(image)
        if self.transform is not None:
            image = center_crop(image, self.resolution)
        image = resize(image, self.resolution, self.resize_filter)
        return self._barred(image) if self.transform == "center-crop-wide" else image

    def enlarges(self, image: Image.Image) -> bool:
        """Whether a picture is smaller than what it will fill, so that it will look soft."""
        if self.resolution is None:
            return False
        smaller = [image.height < self.resolution[0], image.width < self.resolution[1]]
        return all(smaller) if self.transform == "pad" else any(smaller)

    def _padded(self, image: Image.Image) -> Image.Image:
        assert self.resolution is not None
        height, width = self.resolution
        scale = min(height / image.height, width / image.width)
        inner = max(1, round(image.height * scale)), max(1, round(image.width * scale))
        colour = Image.new("RGB", (width, height), self.background).convert(image.mode)
        if image.mode in ("LA", "RGBA"):
            colour.putalpha(0)
        image = resize(image, inner, self.resize_filter)
        colour.paste(image, ((width - inner[1]) // 2, (height - inner[0]) // 2))
        return colour

    def _barred(self, image: Image.Image) -> Image.Image:
        square = Image.new("RGB", (image.width, image.width)).convert(image.mode)
        square.paste(image, (0, (image.width - image.height) // 2))
        return square


def with_channels(image: Image.Image, channels: Channels, background: tuple[int, int, int]) -> Image.Image:
    """Converts a picture in mode L, LA, RGB or RGBA to 1, 3 or 4 channels; lost alpha shows the background."""
    if channels == "keep":
        return image
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if image.mode == mode:
        return image
    if image.mode in ("LA", "RGBA") and channels != 4:
        canvas = Image.new("RGBA", image.size, (*background, 255))
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB").convert(mode)
    return image.convert(mode)


def center_crop(image: Image.Image, resolution: tuple[int, int]) -> Image.Image:
    """Cuts the largest part with the proportions of a (height, width) from the middle."""
    height, width = resolution
    if image.width * height > image.height * width:
        crop_h, crop_w = image.height, max(1, round(image.height * width / height))
    else:
        crop_h, crop_w = max(1, round(image.width * height / width)), image.width
    left, top = (image.width - crop_w) // 2, (image.height - crop_h) // 2
    return image.crop((left, top, left + crop_w, top + crop_h))


def resize(image: Image.Image, resolution: tuple[int, int], resize_filter: ResizeFilter) -> Image.Image:
    """Resizes to (height, width); transparent pixels carry no weight. The same size changes nothing."""
    height, width = resolution
    if (image.height, image.width) == resolution:
        return image
    if resize_filter == "box" and image.height % height == 0 and image.width % width == 0:
        return _block_means(image, height, width)
    return image.resize((width, height), FILTERS[resize_filter])


def _block_means(image: Image.Image, height: int, width: int) -> Image.Image:
    """Means of whole blocks, rounded once. Pillow's box filter rounds after each axis, which shifts one in a few."""
    h, w = image.height // height, image.width // width
    pixels = np.asarray(image).reshape(height, h, width, w, channels_of(image))
    if image.mode in ("LA", "RGBA"):
        alpha = pixels[..., -1:].astype(np.uint64)
        alpha_sum = alpha.sum((1, 3))  # [height, width, 1]
        colour_sum = (pixels[..., :-1] * alpha).sum((1, 3))  # [height, width, C - 1]
        colour = (colour_sum + alpha_sum // 2) // np.maximum(alpha_sum, 1)
        means = np.concatenate([colour, (alpha_sum + h * w // 2) // (h * w)], axis=-1)
    else:
        means = (pixels.sum((1, 3), dtype=np.uint64) + h * w // 2) // (h * w)  # [height, width, C]
    means = means.astype(np.uint8)
    return Image.fromarray(means[:, :, 0] if means.shape[2] == 1 else means)


def _expect_one_of(flag: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        names = ", ".join(str(choice) for choice in choices)
        raise ValueError(f"{flag}: got {value}, expected one of {names}")
