import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_generators import tiny_generator

from styleforge.inversion import read_targets


def picture(path, size=(16, 16), mode="RGB", seed=0, **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
    image = Image.fromarray(pixels[:, :, 0] if mode == "L" else pixels)
    image.save(path, **options)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def one(path, G, **arguments):
    (target,) = read_targets([path], G, **arguments)
    return target


def test_a_picture_of_the_networks_size_keeps_its_pixels(G, tmp_path):
    expected = picture(tmp_path / "face.png")
    target = one(tmp_path / "face.png", G)
    assert torch.equal(target.image, expected)
    assert (target.name, target.source) == ("face", str(tmp_path / "face.png"))


def test_folders_and_zips_are_read_in_order(G, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("b.png", "a.png", "deep/a.webp"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    picture(tmp_path / "A.bmp")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(tmp_path / "A.bmp", "c.bmp")
    targets = read_targets([tmp_path / "in", str(tmp_path / "A.bmp"), tmp_path / "more.zip"], G)
    assert [target.name for target in targets] == ["a", "b", "a-2", "A-3", "c"]  # names of folders, whatever the system


def test_pictures_beyond_the_limit_are_not_read(G, tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no picture")
    assert [target.name for target in read_targets([tmp_path], G, limit=2)] == ["a", "b"]
    assert [target.name for target in read_targets([tmp_path / "b.png"], G, limit=2)] == ["b"]


@pytest.mark.parametrize(("kind", "mode"), [("gray", "L"), ("square", "RGB"), ("rgba", "RGBA")])
@pytest.mark.parametrize("stored", ["L", "LA", "RGB", "RGBA"])
def test_channels_become_the_networks(tmp_path, kind, mode, stored):
    G = tiny_generator(kind)
    picture(tmp_path / "x.png", mode=stored)
    with Image.open(tmp_path / "x.png") as image:
        rgba = image.convert("RGBA")
    expected = rgba if mode == "RGBA" else Image.alpha_composite(Image.new("RGBA", (16, 16), "white"), rgba)
    expected = np.asarray(expected.convert("RGB").convert(mode) if mode != "RGBA" else expected).astype(int)
    found = one(tmp_path / "x.png", G).image.permute(1, 2, 0).numpy().reshape(expected.shape)
    assert np.abs(found - expected).max() <= 1


def test_a_camera_turned_on_its_side_is_set_upright(tmp_path):
    G = tiny_generator("non-square")  # 32 wide, 24 high
    exif = Image.Exif()
    exif[0x0112] = 6
    expected = picture(tmp_path / "x.png", size=(24, 32), exif=exif)
    assert torch.equal(one(tmp_path / "x.png", G).image, expected.rot90(-1, (1, 2)))


def test_other_proportions_need_a_choice(tmp_path, refuses):
    G = tiny_generator("non-square")
    expected = picture(tmp_path / "x.png", size=(40, 24))
    with refuses("x.png: got 40x24", "32x24", "--align center-crop, pad or stretch"):
        read_targets([tmp_path / "x.png"], G)
    assert torch.equal(one(tmp_path / "x.png", G, align="center-crop").image, expected[:, :, 4:36])
    padded = one(tmp_path / "x.png", G, align="pad", background=(255, 0, 0)).image
    assert padded[:, 0, 0].tolist() == padded[:, -1, -1].tolist() == [255, 0, 0]
    assert not torch.equal(padded[:, 12], one(tmp_path / "x.png", G, align="stretch").image[:, 12])
    picture(tmp_path / "large.png", size=(64, 48))
    assert one(tmp_path / "large.png", G).image.shape == (3, 24, 32)


def test_what_is_no_picture_is_refused(G, tmp_path, refuses):
    (tmp_path / "x.png").write_bytes(b"no picture")
    for path in (tmp_path, tmp_path / "x.png"):
        with refuses("x.png: got a broken picture"):
            read_targets([path], G)
    (tmp_path / "x.png").unlink()
    with refuses("without pictures"):
        read_targets([tmp_path], G)
    with refuses("targets: got none", "--target"):
        read_targets([], G)
    with pytest.raises(FileNotFoundError, match="expected a picture or a folder"):
        read_targets([tmp_path / "missing.png"], G)
    with refuses("6 channels"):
        read_targets([tmp_path], tiny_generator("many-channels"))
    with refuses("align: got 'squeeze'", "--align"):
        read_targets([tmp_path], G, align="squeeze")
