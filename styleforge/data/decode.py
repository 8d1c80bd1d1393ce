"""From a picture file's bytes to upright 8-bit pixels in one of four modes: L, LA, RGB, RGBA."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import IO

import numpy as np
from PIL import Image, ImageCms

ORIENTATION = 0x0112
"""Number of the EXIF tag that says how a camera was held."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets a picture upright, for each orientation but 1, which is upright already."""
PROFILE_SPACES = {"L": "GRAY", "LA": "GRAY", "RGB": "RGB", "RGBA": "RGB", "CMYK": "CMYK"}
"""Colour space that a profile must describe to fit a picture's mode."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One picture, ready for use."""

    image: Image.Image
    """Upright, in mode L, LA, RGB or RGBA."""
    stored_mode: str
    """Pillow's name of the mode in the file, such as ``CMYK`` or ``I;16``."""
    notes: tuple[str, ...]
    """What was done besides a change of mode, such as ``rotated by EXIF``."""


def decode(data: bytes, *, manage_colour: bool = False) -> Decoded:
    """Decodes a picture of any kind that Pillow reads; of an animation, the first frame.

    A palette becomes RGB, CMYK and the like too, 16 bits become 8, and transparency of any kind becomes an alpha
    channel. The orientation that a camera noted is applied.

    Args:
        data: Content of the file.
        manage_colour: Convert an embedded colour profile to sRGB; otherwise pixel values stand as stored.

    Raises:
        ValueError: It is no picture, is broken, or has pixels without a known range.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        notes = ["first frame of several"] if getattr(image, "is_animated", False) else []
        image.load()
        stored_mode, profile = image.mode, image.info.get("icc_profile")
        turn = TURNS.get(_orientation(image))
        if turn is not None:
            image = image.transpose(turn)
            notes.append("rotated by EXIF")
        image = _eight_bits(image)
        if manage_colour and profile:
            image, note = _to_srgb(image, profile)
            notes.append(note)
        if image.mode == "CMYK":
            image = image.convert("RGB")
    except Exception as error:  # Pillow's plug-ins raise almost anything on hostile data
        reason = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else str(error) or repr(error)
        raise ValueError(f"broken picture ({reason})") from error
    return Decoded(image, stored_mode, tuple(notes))


def read_header(stream: IO[bytes]) -> tuple[tuple[int, int], int]:
    """Reads the upright (height, width) and the number of channels that `decode` would give, and no pixels.

    Raises:
        ValueError: The header is not that of a picture.
    """
    try:
        with Image.open(stream) as image:
            width, height = image.size
            # For PNG, asking for EXIF would load the pixels; there, a note in the header says if it is present.
            if (image.format != "PNG" or "exif" in image.info) and _orientation(image) in (5, 6, 7, 8):
                width, height = height, width
            return (height, width), len(_plain_mode(image))
    except Exception as error:
        raise ValueError("broken picture (unreadable header)") from error


def channels_of(image: Image.Image) -> int:
    """Number of channels of a decoded picture: L 1, LA 2, RGB 3, RGBA 4."""
    return len(image.getbands())


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none; broken EXIF is no reason to give up a sound picture."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def _plain_mode(image: Image.Image) -> str:
    """The mode of L, LA, RGB, RGBA that holds a picture's content."""
    colour = "L" if image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I") else "RGB"
    return colour + "A" if image.has_transparency_data and not image.mode.startswith("I") else colour


def _eight_bits(image: Image.Image) -> Image.Image:
    """Converts to L, LA, RGB or RGBA; CMYK stays, for its profile."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("32-bit pixels have no fixed range; save it with 8 or 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))  # the high byte, as Pillow reads 16-bit colour
    mode = "CMYK" if image.mode == "CMYK" else _plain_mode(image)
    return image if image.mode == mode else image.convert(mode)


def _to_srgb(image: Image.Image, profile_data: bytes) -> tuple[Image.Image, str]:
    """Converts L, LA, RGB, RGBA or CMYK by an ICC profile; a profile that is broken or does not fit is left aside."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_data))
        if profile.profile.xcolor_space.strip() != PROFILE_SPACES[image.mode]:
            return image, "unfit colour profile ignored"
        if ImageCms.getProfileDescription(profile).startswith("sRGB"):
            return image, "sRGB profile"  # a conversion would only add rounding errors
        alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
        colour = image.convert(image.mode.removesuffix("A"))
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        converted = ImageCms.profileToProfile(colour, profile, srgb, outputMode="RGB")
        assert converted is not None  # only in-place conversion returns None
        if colour.mode == "L":
            converted = converted.getchannel("G")  # gray stays gray: its three channels are equal
    except (ImageCms.PyCMSError, OSError):
        return image, "broken colour profile ignored"
    if alpha is not None:
        converted.putalpha(alpha)
    return converted, "colour profile to sRGB"
