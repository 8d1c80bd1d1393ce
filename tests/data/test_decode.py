import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from small_datasets import encode

from styleforge.data.decode import channels_of, decode, read_header

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 10, 3), dtype=np.uint8)
GRAY = RGB[:, :, 0]


def save(image, **settings):
    stream = io.BytesIO()
    image.save(stream, **({"format": "png"} | settings))
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_plain_modes_are_kept_exactly(mode):
    image = Image.fromarray(RNG.integers(0, 256, (6, 10, 4), dtype=np.uint8)).convert(mode)
    decoded = decode(save(image))
    assert (decoded.image.mode, decoded.stored_mode, decoded.notes) == (mode, mode, ())
    assert (np.asarray(decoded.image) == np.asarray(image)).all()
    assert channels_of(decoded.image) == len(mode)


def test_palette_becomes_rgb_and_with_transparency_rgba():
    palette = Image.fromarray(RGB).quantize(16)
    assert (np.asarray(decode(save(palette)).image) == np.asarray(palette.convert("RGB"))).all()
    transparent = decode(save(palette, transparency=3)).image
    assert transparent.mode == "RGBA"
    assert ((np.asarray(transparent)[:, :, 3] == 0) == (np.asarray(palette) == 3)).all()


def test_colour_key_becomes_alpha():
    keyed = decode(save(Image.fromarray(RGB), transparency=tuple(RGB[2, 3].tolist()))).image
    assert keyed.mode == "RGBA"
    assert np.asarray(keyed)[2, 3, 3] == 0
    assert decode(save(Image.fromarray(GRAY), transparency=int(GRAY[0, 0]))).image.mode == "LA"


def test_sixteen_bits_keep_their_high_byte():
    wide = RNG.integers(0, 65536, (6, 10), dtype=np.uint16)
    for image_format in ("png", "tiff"):
        decoded = decode(encode(wide, format=image_format))
        assert decoded.stored_mode.startswith("I")
        assert (np.asarray(decoded.image) == wide // 256).all()


def test_one_bit_and_cmyk_and_jpeg_gray_are_decoded():
    assert decode(save(Image.fromarray(GRAY).convert("1"))).image.mode == "L"
    cmyk = Image.fromarray(RGB).convert("CMYK")
    assert (np.asarray(decode(save(cmyk, format="tiff")).image) == RGB).all()
    assert decode(save(Image.fromarray(GRAY), format="jpeg")).image.mode == "L"


def test_pixels_without_a_range_are_refused():
    for pixels in (RGB[:, :, 0].astype(np.float32), np.full((4, 4), 1 << 20, np.int32)):
        with pytest.raises(ValueError, match="pixels have no fixed range"):
            decode(encode(pixels, format="tiff"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_pillow_does(orientation):
    image = Image.fromarray(RGB)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for settings in ({"format": "png"}, {"format": "webp", "lossless": True}):
        data = save(image, exif=exif, **settings)
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        decoded = decode(data)
        assert (np.asarray(decoded.image) == np.asarray(expected)).all()
        assert decoded.notes == (("rotated by EXIF",) if orientation > 1 else ())
        size, channels = read_header(io.BytesIO(data))
        assert (size, channels) == ((expected.height, expected.width), 3)


def test_broken_exif_does_not_lose_the_picture():
    assert decode(save(Image.fromarray(RGB), exif=b"Exif\0\0garbage")).image.size == (10, 6)


def test_animations_give_their_first_frame():
    frames = [Image.fromarray(RNG.integers(0, 256, (6, 10), dtype=np.uint8)) for _ in range(3)]
    data = save(frames[0], format="gif", save_all=True, append_images=frames[1:])
    decoded = decode(data, manage_colour=True)
    assert (np.asarray(decoded.image.convert("L")) == np.asarray(frames[0])).all()
    assert decoded.notes == ("first frame of several",)


def linear_profile(space):
    """A minimal ICC profile with sRGB's primaries (adapted to D50) and no gamma: pixel values are linear light."""

    def xyz(*values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    identity, text = b"curv" + bytes(8), b"text" + bytes(4) + b"x\0"
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 7) + b"linear\0" + bytes(78), b"cprt": text}
    tags[b"wtpt"] = xyz(0.9642, 1.0, 0.8249)
    if space == b"GRAY":
        tags[b"kTRC"] = identity
    else:
        primaries = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7142)
        for colour, primary in zip("rgb", primaries, strict=True):
            tags[f"{colour}XYZ".encode()], tags[f"{colour}TRC".encode()] = xyz(*primary), identity
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">2I", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    rest = struct.pack(">I", len(tags)) + table + body
    header = struct.pack(">I4sI4s4s4s", 128 + len(rest), b"lcms", 0x02100000, b"mntr", space, b"XYZ ") + bytes(12)
    header += b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + rest


def srgb_curve(values):
    """From linear light to sRGB, IEC 61966-2-1."""
    linear = values / 255
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_colour_profile_is_converted_to_srgb(mode):
    image = Image.fromarray(RNG.integers(0, 256, (6, 10, 4), dtype=np.uint8)).convert(mode)
    data = save(image, icc_profile=linear_profile(b"GRAY" if mode in ("L", "LA") else b"RGB "))
    decoded = decode(data, manage_colour=True)
    assert (decoded.image.mode, decoded.notes) == (mode, ("colour profile to sRGB",))
    before, after = (np.asarray(picture).reshape(6, 10, -1) for picture in (image, decoded.image))
    num_colours = len(mode.removesuffix("A"))
    assert np.abs(srgb_curve(before[..., :num_colours]) - after[..., :num_colours]).max() <= 2
    assert (before[..., num_colours:] == after[..., num_colours:]).all()
    assert (np.asarray(decode(data).image) == np.asarray(image)).all()  # untouched unless asked


def test_a_profile_for_other_channels_or_a_broken_one_is_ignored():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for image, profile, note in (
        (Image.fromarray(GRAY), srgb, "unfit colour profile ignored"),
        (Image.fromarray(RGB), b"nonsense" * 40, "broken colour profile ignored"),
        (Image.fromarray(RGB), srgb, "sRGB profile"),
    ):
        decoded = decode(save(image, icc_profile=profile), manage_colour=True)
        assert decoded.notes == (note,)
        assert (np.asarray(decoded.image) == np.asarray(image)).all()


def test_not_a_picture_and_cut_pictures_are_refused():
    whole = encode(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), format="jpeg")
    with pytest.raises(ValueError, match=r"broken picture \(not a picture\)"):
        decode(b"just some text")
    with pytest.raises(ValueError, match="broken picture"):
        decode(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="broken picture"):
        decode(b"")


def test_header_agrees_with_decoding():
    images = [Image.fromarray(RGB), Image.fromarray(GRAY), Image.fromarray(RGB).quantize(8)]
    images += [image.convert("RGBA") for image in images] + [Image.fromarray(GRAY).convert("LA")]
    for image in images:
        data = save(image)
        decoded = decode(data).image
        assert read_header(io.BytesIO(data)) == ((decoded.height, decoded.width), channels_of(decoded))
