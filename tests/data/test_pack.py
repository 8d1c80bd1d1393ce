import io
import json
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_datasets import encode, random_pictures, with_labels, write_folder, write_lmdb, write_zip

from styleforge.data import ImageDataset
from styleforge.data import writers as writers_module
from styleforge.data.check import check
from styleforge.data.pack import pack

PICTURES = random_pictures([f"{i}.png" for i in range(6)], (16, 16, 3))
FILES = {name: encode(pixels) for name, pixels in PICTURES.items()}


def odd_corpus():
    """One picture of every kind that people have, all 16×16 but for one, and two files that are broken."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image, exif = Image.fromarray(rgb), Image.Exif()
    exif[0x0112] = 6
    frames = [Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)) for _ in range(2)]

    def save(picture, **settings):
        stream = io.BytesIO()
        picture.save(stream, **({"format": "png"} | settings))
        return stream.getvalue()

    jpeg = save(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), format="jpeg")
    return {
        "00_rgb.png": save(image),
        "01_exif.png": save(image, exif=exif),
        "02_cmyk.tif": save(image.convert("CMYK"), format="tiff"),
        "03_palette.png": save(image.quantize(16), transparency=0),
        "04_16bit.png": encode(rng.integers(0, 65536, (16, 16), dtype=np.uint16)),
        "05_la.png": save(Image.fromarray(rng.integers(0, 256, (16, 16, 2), dtype=np.uint8))),
        "06_rgba.png": save(Image.fromarray(rng.integers(0, 256, (16, 16, 4), dtype=np.uint8))),
        "07_cut.jpg": jpeg[: len(jpeg) // 2],
        "08_text.png": b"this is no picture",
        "09_animated.gif": save(frames[0], format="gif", save_all=True, append_images=frames[1:]),
        "10_gray.jpg": save(image.convert("L"), format="jpeg", quality=100),
        "11_large.webp": save(image.resize((40, 30)), format="webp", lossless=True),
        "12_bits.png": save(image.convert("1")),
    }


@pytest.fixture
def corpus(tmp_path):
    return write_folder(tmp_path / "corpus", odd_corpus())


def images(path):
    dataset = ImageDataset(path)
    return torch.stack([dataset[i][0] for i in range(len(dataset))])


def nothing_new(folder, before):
    return sorted(p.name for p in Path(folder).iterdir()) == sorted(before)


def test_pictures_that_fit_are_kept_bit_for_bit(tmp_path):
    report = pack(write_folder(tmp_path / "in", FILES), tmp_path / "out.zip")
    assert (report.found, report.written, report.resolution) == (6, 6, (16, 16))
    assert not report.skipped
    assert not report.notes
    for image, name in zip(images(tmp_path / "out.zip"), sorted(FILES), strict=True):
        assert (image.numpy() == PICTURES[name].transpose(2, 0, 1)).all()


def test_the_zip_is_stored_and_has_the_fields_layout(tmp_path):
    pack(write_folder(tmp_path / "in", FILES), tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        infos = archive.infolist()
        assert [info.filename for info in infos] == [f"00000/img{i:08d}.png" for i in range(6)] + ["dataset.json"]
        assert all(info.compress_type == zipfile.ZIP_STORED and not info.comment for info in infos)
        assert infos[0].file_size > 16 * 16 * 3  # the PNG is not compressed either
        assert json.loads(archive.read("dataset.json")) == {"labels": None}
        assert archive.comment == b""


def test_the_same_pictures_make_the_same_bytes(tmp_path):
    source = write_folder(tmp_path / "in", FILES)
    for name, workers in (("a.zip", 1), ("b.zip", 4)):
        pack(source, tmp_path / name, resolution=8, workers=workers)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_every_kind_of_source_and_target_gives_the_same_dataset(tmp_path):
    results = []
    for source in (
        write_folder(tmp_path / "f", FILES),
        write_zip(tmp_path / "f.zip", FILES, zipfile.ZIP_DEFLATED),
        write_lmdb(tmp_path / "f_lmdb", FILES),
    ):
        for dest in (tmp_path / f"to_{source.name}.zip", tmp_path / f"to_{source.name}_folder"):
            pack(source, dest, resolution=(8, 16), transform="center-crop")
            results.append(images(dest))
    assert all(torch.equal(results[0], result) for result in results)
    assert results[0].shape == (6, 3, 8, 16)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_odd_pictures_are_converted_and_broken_ones_skipped(corpus, tmp_path, channels):
    report = pack(corpus, tmp_path / "out.zip", resolution=16, channels=channels)
    assert set(report.skipped) == {"07_cut.jpg", "08_text.png"}
    assert "not a picture" in report.skipped["08_text.png"]
    assert (report.found, report.written) == (13, 11)
    assert images(tmp_path / "out.zip").shape == (11, channels, 16, 16)
    assert not check(tmp_path / "out.zip").problems


def test_the_report_tells_what_was_done(corpus, tmp_path):
    report = pack(corpus, tmp_path / "out.zip", resolution=16)
    assert report.notes["01_exif.png"] == ["rotated by EXIF"]
    assert report.notes["02_cmyk.tif"] == ["mode CMYK to RGB"]
    assert report.notes["04_16bit.png"] == ["mode I;16 to RGB"]
    assert report.notes["05_la.png"] == ["mode LA to RGB"]
    assert report.notes["09_animated.gif"][0] == "first frame of several"
    assert "00_rgb.png" not in report.notes
    written = json.loads((tmp_path / "out.zip.report.json").read_text())
    assert written["notes"] == report.notes
    assert written["skipped"] == report.skipped
    assert written["files"]["00000/img00000001.png"] == "01_exif.png"
    assert written["settings"]["resize_filter"] == "lanczos"
    assert report.note_counts()["mode CMYK to RGB"] == 1
    assert pack(corpus, tmp_path / "large.zip", resolution=32).note_counts()["enlarged"] == 11


def test_odd_pictures_have_the_right_pixels(corpus, tmp_path):
    report = pack(corpus, tmp_path / "out.zip", resolution=16, background=(0, 128, 255))
    order = {source: i for i, source in enumerate(report.files.values())}
    packed = images(tmp_path / "out.zip").numpy().transpose(0, 2, 3, 1)
    original = np.asarray(Image.open(corpus / "00_rgb.png"))
    assert (packed[order["00_rgb.png"]] == original).all()
    assert (packed[order["01_exif.png"]] == np.rot90(original, -1)).all()
    assert (packed[order["02_cmyk.tif"]] == original).all()
    wide = np.asarray(Image.open(corpus / "04_16bit.png"))
    assert (packed[order["04_16bit.png"]] == wide[..., None] // 256).all()
    rgba = np.asarray(Image.open(corpus / "06_rgba.png")).astype(np.float64)
    alpha = rgba[..., 3:] / 255
    assert np.abs(packed[order["06_rgba.png"]] - (rgba[..., :3] * alpha + [[[0, 128, 255]]] * (1 - alpha))).max() <= 1
    clear = np.asarray(Image.open(corpus / "03_palette.png")) == 0
    assert (packed[order["03_palette.png"]][clear] == (0, 128, 255)).all()


def test_a_cut_jpeg_is_completed_when_asked(corpus, tmp_path):
    report = pack(corpus, tmp_path / "out.zip", resolution=16, on_error="convert")
    assert set(report.skipped) == {"08_text.png"}
    assert "cut short, filled up with gray" in report.notes["07_cut.jpg"]


def test_a_fatal_policy_names_the_file_and_touches_nothing(corpus, tmp_path):
    (tmp_path / "out.zip").write_bytes(b"an older dataset")
    before = [*(p.name for p in tmp_path.iterdir()), "out.zip.partial"]
    with pytest.raises(ValueError, match=r"^07_cut\.jpg in .*corpus: broken picture .*--on-error=skip$"):
        pack(corpus, tmp_path / "out.zip", resolution=16, on_error="fail", overwrite=True)
    assert (tmp_path / "out.zip").read_bytes() == b"an older dataset"
    assert nothing_new(tmp_path, before)
    with pytest.raises(ValueError, match=r"^01_exif\.png|02_cmyk\.tif in .*: stored as CMYK, not RGB"):
        pack(corpus, tmp_path / "folder", resolution=16, on_odd="fail")
    assert nothing_new(tmp_path, before)


def test_odd_pictures_can_be_left_out(corpus, tmp_path):
    report = pack(corpus, tmp_path / "out.zip", resolution=16, on_odd="skip")
    assert list(report.files.values()) == ["00_rgb.png", "01_exif.png", "11_large.webp"]
    assert report.skipped["02_cmyk.tif"] == "stored as CMYK, not RGB; allow it with --on-odd=convert"


# --- Size --------------------------------------------------------------------------------------------------------


def test_mixed_sizes_without_a_resolution_are_said_before_the_work(corpus, tmp_path):
    with pytest.raises(
        ValueError, match=r"00_rgb\.png has 16×16 and 07_cut\.jpg 64×64 .*, expected all alike; .*=16x16"
    ):
        pack(corpus, tmp_path / "out.zip")
    assert nothing_new(tmp_path, ["corpus"])


def test_an_illegal_size_is_said_with_the_nearest_legal_ones(tmp_path):
    source = write_folder(tmp_path / "in", {"a.png": encode(np.zeros((100, 90, 3), np.uint8))})
    with pytest.raises(ValueError, match=r"got 100×90 .*nearest legal sizes are 96×96, .*--resolution=96x96"):
        pack(source, tmp_path / "out.zip")
    with pytest.raises(ValueError, match=r"got 33×17 .*nearest legal sizes are"):
        pack(source, tmp_path / "out.zip", resolution=(33, 17))
    assert nothing_new(tmp_path, ["in"])


def test_kept_channels_must_be_alike(tmp_path):
    mixed = FILES | {"z.png": encode(np.zeros((16, 16), np.uint8))}
    with pytest.raises(ValueError, match=r"0\.png has 3 and z\.png 1 channels, expected all alike; .*--channels=3"):
        pack(write_folder(tmp_path / "in", mixed), tmp_path / "out.zip", channels="keep")
    gray = {name: encode(pixels[:, :, 0]) for name, pixels in PICTURES.items()}
    pack(write_folder(tmp_path / "gray", gray), tmp_path / "gray.zip", channels="keep")
    assert ImageDataset(tmp_path / "gray.zip").img_channels == 1


@pytest.mark.parametrize(("image_format", "exact"), [("png", True), ("webp", True), ("jpeg", False)])
def test_formats_keep_what_they_promise(tmp_path, image_format, exact):
    pack(write_folder(tmp_path / "in", FILES), tmp_path / "out.zip", image_format=image_format)
    suffix = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}[image_format]
    assert ImageDataset(tmp_path / "out.zip").names[0] == f"00000/img00000000{suffix}"
    expected = np.stack([PICTURES[name] for name in sorted(PICTURES)]).transpose(0, 3, 1, 2)
    difference = np.abs(images(tmp_path / "out.zip").numpy().astype(int) - expected)
    assert (difference.max() == 0) == exact
    assert difference.mean() < 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_format": "bmp"}, "--format: got bmp, expected one of png, jpeg, webp"),
        ({"image_format": "jpeg", "channels": 4}, "--channels: got 4, expected 1 or 3 for jpeg"),
        ({"image_format": "webp", "channels": "keep"}, "--channels: got keep, expected 3 or 4 for webp"),
        ({"on_error": "ignore"}, "--on-error: got ignore"),
        ({"on_odd": "ignore"}, "--on-odd: got ignore"),
        ({"max_images": 0}, "--max-images: got 0"),
        ({"labels": "nowhere.csv"}, r"nowhere\.csv"),
    ],
)
def test_settings_that_make_no_sense_are_said_and_leave_nothing(tmp_path, settings, message):
    with pytest.raises((ValueError, OSError), match=message):
        pack(write_folder(tmp_path / "in", FILES), tmp_path / "out.zip", **settings)
    assert nothing_new(tmp_path, ["in"])


def test_a_source_of_nothing_but_broken_files_is_said(tmp_path):
    source = write_folder(tmp_path / "in", {"a.png": b"x", "b.png": b"y"})
    for settings in ({"resolution": 16}, {}):
        with pytest.raises(
            ValueError, match=r"none of the 2 pictures can|none of the 2 pictures could be packed, a\.png"
        ):
            pack(source, tmp_path / "out.zip", **settings)
        assert nothing_new(tmp_path, ["in"])


# --- Labels ------------------------------------------------------------------------------------------------------


def test_labels_follow_their_pictures(tmp_path):
    labelled = with_labels(FILES | {"3.png": b"broken"}, [[name, [i, 0.5]] for i, name in enumerate(FILES)])
    report = pack(write_folder(tmp_path / "in", labelled), tmp_path / "out.zip")
    assert (report.label_kind, report.label_size) == ("vector", 2)
    dataset = ImageDataset(tmp_path / "out.zip", use_labels=True)
    assert [dataset.label(i).tolist() for i in range(5)] == [[i, 0.5] for i in (0, 1, 2, 4, 5)]
    assert pack(tmp_path / "in", tmp_path / "none.zip", labels="none").label_kind is None


def test_folders_become_classes_and_all_classes_are_kept(tmp_path):
    source = write_folder(
        tmp_path / "in", {f"{c}/{n}": data for c in ("cat", "dog", "emu") for n, data in FILES.items()}
    )
    report = pack(source, tmp_path / "out.zip", max_images=1)
    assert report.label_size == 3
    dataset = ImageDataset(tmp_path / "out.zip", use_labels=True)
    assert (dataset.c_dim, dataset.class_names) == (3, ("cat", "dog", "emu"))
    assert ["cat", "dog", "emu"][int(dataset.label(0).argmax())] == report.files["00000/img00000000.png"][:3]


def test_numbered_folders_are_classes_only_when_asked(tmp_path):
    source = write_folder(
        tmp_path / "in", {f"0000{i % 2}/{name}": data for i, (name, data) in enumerate(FILES.items())}
    )
    assert pack(source, tmp_path / "a.zip").label_kind is None
    assert pack(source, tmp_path / "b.zip", labels="folders").label_size == 2
    with pytest.raises(ValueError, match="--labels: got folders, but"):
        pack(write_folder(tmp_path / "flat", FILES), tmp_path / "c.zip", labels="folders")


def test_a_label_file_must_cover_all_pictures(tmp_path):
    source = write_folder(tmp_path / "in", FILES)
    (tmp_path / "l.csv").write_text("".join(f"{name},{i % 2}\n" for i, name in enumerate(FILES)))
    assert pack(source, tmp_path / "a.zip", labels=tmp_path / "l.csv").label_size == 2
    (tmp_path / "l.csv").write_text("0.png,1\n")
    with pytest.raises(ValueError, match=r"5 of 6 pictures have no label, such as 1\.png; .*--labels=none"):
        pack(source, tmp_path / "b.zip", labels=tmp_path / "l.csv")


def test_a_packed_subset_is_the_one_that_the_dataset_takes(tmp_path):
    source = write_folder(tmp_path / "in", FILES)
    report = pack(source, tmp_path / "out.zip", max_images=3)
    assert list(report.files.values()) == ImageDataset(source, max_images=3).names


# --- Target ------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_unasked(tmp_path):
    source = write_folder(tmp_path / "in", FILES)
    (tmp_path / "file").write_bytes(b"mine")
    write_folder(tmp_path / "mine", {"thesis.txt": b"mine"})
    (tmp_path / "old.zip").write_bytes(b"mine")
    for dest, overwrite, message in (
        ("old.zip", False, r"exists already; choose another name or add --overwrite"),
        ("mine", False, "is not empty"),
        ("mine", True, "is not empty"),
        ("file", True, "is a file, expected a name that ends in .zip"),
        ("in", True, "the target lies in the source"),
        ("in/out", True, "the target lies in the source"),
    ):
        with pytest.raises(ValueError, match=message):
            pack(source, tmp_path / dest, overwrite=overwrite)
    assert nothing_new(tmp_path, ["in", "file", "mine", "old.zip"])
    assert (tmp_path / "mine" / "thesis.txt").read_bytes() == b"mine"
    zipped = write_zip(tmp_path / "in.zip", FILES)
    with pytest.raises(ValueError, match="the target lies in the source"):
        pack(zipped, zipped, overwrite=True)


@pytest.mark.parametrize("dest", ["out.zip", "out"])
def test_a_dataset_is_replaced_when_asked(tmp_path, dest):
    source = write_folder(tmp_path / "in", FILES)
    pack(source, tmp_path / dest, max_images=2)
    pack(source, tmp_path / dest, overwrite=True)
    assert len(ImageDataset(tmp_path / dest)) == 6
    assert nothing_new(tmp_path, ["in", dest, f"{dest}.report.json"])


def test_a_dry_run_plans_and_writes_nothing(tmp_path):
    source = write_folder(tmp_path / "in", FILES)
    report = pack(source, tmp_path / "deep" / "out.zip", resolution=8, dry_run=True)
    assert (report.found, report.written, report.resolution) == (6, 0, (8, 8))
    assert nothing_new(tmp_path, ["in"])


class Stop(KeyboardInterrupt):
    """Ctrl-C after some pictures."""


def stop_after(count):
    def progress(done, total):
        if done == count:
            raise Stop

    return progress


def test_an_interrupted_zip_is_taken_up_and_ends_the_same(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "in", FILES)
    pack(source, tmp_path / "whole.zip", resolution=8)
    with pytest.raises(Stop):
        pack(source, tmp_path / "out.zip", resolution=8, progress=stop_after(4))
    assert nothing_new(tmp_path, ["in", "whole.zip", "whole.zip.report.json", "out.zip.partial"])
    made = []
    write = writers_module.Writer.add
    monkeypatch.setattr(
        writers_module.Writer,
        "add",
        lambda self, *a, source, **k: (made.append(source), write(self, *a, source=source, **k)),
    )
    report = pack(source, tmp_path / "out.zip", resolution=8)
    assert made == ["4.png", "5.png"]
    assert report.written == 6
    assert (tmp_path / "out.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert not (tmp_path / "out.zip.partial").exists()


def test_an_interrupted_zip_is_dropped_when_settings_or_pictures_changed(tmp_path):
    source = write_folder(tmp_path / "in", FILES)
    for change in ("settings", "pictures", "garbage"):
        with pytest.raises(Stop):
            pack(source, tmp_path / f"{change}.zip", progress=stop_after(4))
    (tmp_path / "garbage.zip.partial").write_bytes(b"PK\x03\x04 and then the machine went down")
    (source / "0.png").write_bytes(FILES["1.png"] + b" ")
    for change, resolution in (("settings", 8), ("pictures", None), ("garbage", None)):
        pack(source, tmp_path / f"{change}.zip", resolution=resolution)
        expected = 8 if resolution else 16
        assert images(tmp_path / f"{change}.zip").shape == (6, 3, expected, expected)
    assert torch.equal(images(tmp_path / "pictures.zip"), images(source))
    assert torch.equal(images(tmp_path / "garbage.zip"), images(source))


def test_an_interrupted_folder_leaves_nothing(tmp_path):
    source = write_folder(tmp_path / "in", FILES)
    with pytest.raises(Stop):
        pack(source, tmp_path / "out", progress=stop_after(4))
    assert nothing_new(tmp_path, ["in"])


@pytest.mark.parametrize("dest", ["out.zip", "out"])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, dest):
    source = write_folder(tmp_path / "in", {f"{i}.png": FILES["0.png"] for i in range(40)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000 if dest.endswith(".zip") else 500, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"{dest}: writing failed after \d+ pictures .*File too large"):
            pack(source, tmp_path / dest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert nothing_new(tmp_path, ["in"])


def test_progress_counts_up_to_all(tmp_path):
    steps = []
    source = write_folder(tmp_path / "in", FILES | {"3.png": b"broken"})
    pack(source, tmp_path / "out.zip", progress=lambda done, total: steps.append((done, total)))
    assert steps == [(i, 6) for i in range(1, 7)]
