"""The built-in portraits: what is random, what is drawn, and what is written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from styleforge.data import portraits
from styleforge.data.portrait_scene import EYE
from styleforge.data.portrait_shapes import Head
from styleforge.data.portraits import FACTORS, LOOSE, draw, landmarks, sample_factors, write_portraits

NAMES = [factor.name for factor in FACTORS]
PLAIN = {
    "yaw": 0, "pitch": 0, "face_shape": 0.5, "skin": 0.3, "hair_style": 1, "hair_colour": 1, "eye_colour": 2,
    "eye_openness": 1, "gaze": 0, "brows": 0, "smile": 0.5, "mouth_openness": 0.8, "teeth": 0.8, "glasses": 0,
    "beard": 0, "clothes": 0.5, "background": 0.3, "backdrop": 0, "light": 0,
}  # fmt: skip
"""A portrait on which nothing hides anything else."""


def portrait(**changes: float) -> np.ndarray:
    values = PLAIN | changes
    return np.array([values[name] for name in NAMES], dtype=float)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Largest difference of the channels of two pictures, [H, W]."""
    return abs(a.astype(int) - b).max(axis=2)


def pixel(image: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    return image[int(point[1]), int(point[0])].astype(int)


# ---- What is random --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.stack([sample_factors(index, seed=0) for index in range(2000)])


def test_there_are_about_fifteen_factors_with_names_of_their_own() -> None:
    assert 15 <= len(FACTORS) <= 20
    assert len(set(NAMES)) == len(FACTORS)
    assert all(factor.kind == ("categorical" if factor.values else "continuous") for factor in FACTORS)


def test_factors_depend_on_seed_and_index_alone() -> None:
    assert np.array_equal(sample_factors(7, 3), sample_factors(7, 3))
    assert not np.array_equal(sample_factors(7, 3), sample_factors(8, 3))
    assert not np.array_equal(sample_factors(7, 3), sample_factors(7, 4))
    assert not np.array_equal(sample_factors(3, 7), sample_factors(7, 3))


def test_factors_keep_their_old_values() -> None:
    # The picture that a seed and an index name must never change: datasets and results are quoted by them.
    assert sample_factors(123, 45).tolist() == [
        -21.3534,
        -7.4726,
        0.0742,
        0.4922,
        1.0,
        4.0,
        2.0,
        0.4525,
        0.1838,
        0.5707,
        -0.1251,
        0.1153,
        0.1615,
        1.0,
        0.0,
        0.8435,
        0.0144,
        0.0,
        -0.1601,
    ]


def test_factors_are_independent(samples: np.ndarray) -> None:
    correlation = np.corrcoef(samples.T) - np.eye(len(FACTORS))
    assert abs(correlation).max() < 0.09  # 4 standard deviations of an estimate from 2000 samples


@pytest.mark.parametrize("j", range(len(FACTORS)), ids=NAMES)
def test_factors_have_the_distribution_that_they_state(samples: np.ndarray, j: int) -> None:
    factor, column = FACTORS[j], samples[:, j]
    if factor.values:
        counts = np.bincount(column.astype(int), minlength=len(factor.values))
        assert stats.chisquare(counts, np.array(factor.probabilities) * len(column)).pvalue > 1e-3
    else:
        assert factor.low <= column.min() and column.max() <= factor.high
        assert stats.kstest(column, stats.uniform(factor.low, factor.high - factor.low).cdf).pvalue > 1e-3


def test_quantile_is_the_inverse_of_the_distribution() -> None:
    styles = FACTORS[NAMES.index("hair_style")]
    edges = np.cumsum((0, *styles.probabilities))
    for i in range(len(styles.values)):
        assert styles.quantile(edges[i] + 1e-6) == i
        assert styles.quantile(edges[i + 1] - 1e-6) == i
    assert FACTORS[0].quantile(0.25) == pytest.approx(FACTORS[0].low * 0.75 + FACTORS[0].high * 0.25)


# ---- What is drawn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [16, 64, 100, (96, 64), (64, 112)])
def test_pictures_have_the_asked_size(resolution: int | tuple[int, int]) -> None:
    image = draw(sample_factors(0), resolution)
    assert image.shape == ((resolution, resolution, 3) if isinstance(resolution, int) else (*resolution, 3))
    assert image.dtype == np.uint8
    assert image.std() > 20


def test_same_factors_give_the_same_picture_in_another_process() -> None:
    program = (
        "import hashlib; from styleforge.data.portraits import draw, sample_factors\n"
        "print(hashlib.sha256(b''.join(draw(sample_factors(i)).tobytes() for i in range(8))).hexdigest())"
    )
    digest = hashlib.sha256(b"".join(draw(sample_factors(i)).tobytes() for i in range(8))).hexdigest()
    environment = os.environ | {"PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "2"}
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == digest


@pytest.mark.parametrize("factor", FACTORS, ids=NAMES)
def test_each_factor_alone_changes_the_picture(factor) -> None:
    low, high = factor.bounds
    settings = range(int(high) + 1) if factor.values else (low, (low + high) / 2, high)
    images = [draw(portrait(**{factor.name: setting})) for setting in settings]
    for i, a in enumerate(images):
        for b in images[:i]:
            assert (difference(a, b) > 12).sum() >= 6  # a few pixels of 4096 at the least, clearly


def test_factors_act_where_they_belong() -> None:
    plain, at = draw(portrait()), landmarks(portrait())
    eyes_row, chin_row = int(at["left_eye"][1]), int(at["chin"][1])
    for name, setting in (("eye_colour", 0), ("gaze", 1), ("eye_openness", 0.4), ("brows", 1)):
        rows = np.flatnonzero(difference(plain, draw(portrait(**{name: setting}))).any(axis=1))
        assert rows.min() > eyes_row - 14 and rows.max() < eyes_row + 8, name
    assert not difference(plain, draw(portrait(clothes=1.0)))[: chin_row + 1].any()
    wall = difference(plain, draw(portrait(background=0.9))) > 0
    assert wall[:, :8].all() or wall[:40, :8].all()
    assert not wall[eyes_row, 20:44].any()


@pytest.mark.parametrize("size", [64, 128])
def test_edges_are_as_smooth_as_a_box_filter_makes_them(size: int) -> None:
    k = 256 // size
    for index in range(12):
        factors = sample_factors(index, seed=5)
        fine = draw(factors, 256).astype(float)
        boxed = fine.reshape(size, k, size, k, 3).mean(axis=(1, 3))
        ours = abs(draw(factors, size) - boxed).mean()
        unfiltered = abs(fine[k // 2 :: k, k // 2 :: k] - boxed).mean()
        assert ours < 1.2
        assert ours < unfiltered / 2


def test_oblong_pictures_hold_the_square_one_in_their_middle() -> None:
    for index in range(4):
        factors = sample_factors(index, seed=2)
        square = draw(factors, 64)
        assert np.array_equal(draw(factors, (64, 112))[:, 24 + 2 : -24 - 2], square[:, 2:-2])
        assert np.array_equal(draw(factors, (96, 64))[16 + 2 : -16 - 2], square[2:-2])


# ---- Where things are ------------------------------------------------------------------------------------------------


def test_surface_is_the_inverse_of_project() -> None:
    head = Head(centre=(0.1, -0.2), radii=(0.5, 0.6), yaw=20, pitch=-10)
    for X, Y in ((0.0, 0.0), (-0.4, 0.3), (0.2, -0.6), EYE):
        for lift in (1.0, 1.1):
            x, y = (np.full((1, 1), value) for value in head.project(X, Y, lift))
            back = head.surface(x, y, lift)
            assert np.allclose([float(back[0][0, 0]), float(back[1][0, 0])], [X, Y], atol=1e-6)
            assert np.allclose(sum(float(c[0, 0]) ** 2 for c in back), 1)


def test_landmarks_follow_yaw_and_pitch() -> None:
    yaws, pitches = np.linspace(-26, 26, 9), np.linspace(-14, 14, 9)
    turned = [landmarks(portrait(yaw=yaw)) for yaw in yaws]
    tilted = [landmarks(portrait(pitch=pitch)) for pitch in pitches]
    for name in ("left_eye", "right_eye", "nose", "mouth", "teeth", "chin"):
        assert (np.diff([at[name][0] for at in turned]) > 0).all(), name
        assert (np.diff([at[name][1] for at in tilted]) < 0).all(), name  # up is towards the first row


def test_what_stands_out_moves_most() -> None:
    def swing(name: str) -> float:
        return landmarks(portrait(yaw=26))[name][0] - landmarks(portrait(yaw=-26))[name][0]

    assert swing("nose") > swing("mouth") * 1.2 > swing("chin") * 1.2
    assert swing("teeth") > 10  # pixels of 64: the pose can be read from the teeth alone


def test_landmarks_scale_with_the_picture() -> None:
    factors = sample_factors(11)
    small, large, wide = landmarks(factors, 64), landmarks(factors, 256), landmarks(factors, (64, 112))
    for name, (x, y) in small.items():
        assert large[name] == pytest.approx((4 * x, 4 * y))
        assert wide[name] == pytest.approx((x + 24, y))


@pytest.mark.parametrize("yaw", [-26, -9, 0, 17, 26])
@pytest.mark.parametrize("pitch", [-14, 0, 14])
def test_teeth_and_pupils_are_drawn_at_their_landmarks(yaw: float, pitch: float) -> None:
    factors = portrait(yaw=yaw, pitch=pitch)
    image, at = draw(factors, 256), landmarks(factors, 256)
    assert pixel(image, at["teeth"]).min() > 190  # white
    assert pixel(image, at["left_eye"]).max() < 90 and pixel(image, at["right_eye"]).max() < 90  # pupils
    toothless = portrait(yaw=yaw, pitch=pitch, teeth=0.0)
    red, green, blue = pixel(draw(toothless, 256), at["teeth"])
    assert red < 130 and green < 70 and blue < 70  # the dark of the mouth


def middle_of_teeth(yaw: float, **loose_yaw: float) -> float:
    """Column of the pixels that showing the teeth turns white, without the help of landmarks."""
    pictures = [draw(portrait(yaw=yaw, teeth=teeth), 128, loose_yaw=loose_yaw).astype(int) for teeth in (0.8, 0.0)]
    weight = (pictures[0] - pictures[1]).clip(0).sum(axis=(0, 2))
    return float((weight * (np.arange(128) + 0.5)).sum() / weight.sum())


def test_measured_teeth_follow_the_pose() -> None:
    for yaw in (-26, -13, 0, 13, 26):
        assert middle_of_teeth(yaw) == pytest.approx(landmarks(portrait(yaw=yaw), 128)["teeth"][0], abs=1.5)


def test_loose_parts_are_painted_where_another_head_has_them() -> None:
    at = landmarks(portrait(yaw=12), 128)
    assert middle_of_teeth(-5, mouth=12, teeth=12) == pytest.approx(at["teeth"][0], abs=1.5)
    assert landmarks(portrait(), 128)["teeth"][0] + 2 < middle_of_teeth(0, teeth=12) < at["teeth"][0]  # in the mouth
    eyes = draw(portrait(yaw=-5, glasses=0), 128, loose_yaw={"eyes": 12})
    assert pixel(eyes, at["left_eye"]).sum() < 150 < pixel(eyes, landmarks(portrait(yaw=-5), 128)["left_eye"]).sum()


@pytest.mark.parametrize("part", LOOSE)
def test_a_loose_part_changes_nothing_else(part: str) -> None:
    changed = difference(draw(portrait(), 64, loose_yaw={part: 8}), draw(portrait(), 64)) > 0
    rows = np.nonzero(changed.any(axis=1))[0]
    landmark = landmarks(portrait(), 64)["left_eye" if part == "eyes" else "mouth"]
    assert 0 < np.ptp(rows) < 16 and abs(rows.mean() - landmark[1]) < 4


def test_loose_parts_that_look_where_the_head_looks_are_as_they_were() -> None:
    plain = draw(portrait(yaw=9), 64)
    assert np.array_equal(draw(portrait(yaw=9), 64, loose_yaw={"eyes": 9, "mouth": 9}), plain)
    changed = difference(draw(portrait(yaw=9), 64, loose_yaw={"teeth": 9}), plain) > 8
    assert changed.sum() < 20  # the teeth's edge is cut out twice


# ---- What is written -------------------------------------------------------------------------------------------------


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a dataset, name to bytes."""
    if path.is_dir():
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_zip_has_the_layout_of_the_field(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    write_portraits(tmp_path / "p.zip", resolution=32, num=3, progress=lambda done, total: steps.append((done, total)))
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        assert archive.namelist() == [*(f"00000/img0000000{i}.png" for i in range(3)), "dataset.json", "factors.json"]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        assert json.loads(archive.read("dataset.json")) == {"labels": None}
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_each_thousand_has_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portraits, "draw", lambda factors, size: np.zeros((*size, 3), np.uint8))
    write_portraits(tmp_path / "p.zip", resolution=16, num=1001)
    names = list(contents(tmp_path / "p.zip"))
    assert names[999:1001] == ["00000/img00000999.png", "00001/img00001000.png"]


def test_factors_file_describes_and_redraws_every_picture(tmp_path: Path) -> None:
    write_portraits(tmp_path / "p.zip", resolution=(48, 40), num=4, seed=9)
    files = contents(tmp_path / "p.zip")
    record = json.loads(files["factors.json"])
    assert record["names"] == NAMES == [entry["name"] for entry in record["factors"]]
    for entry, factor in zip(record["factors"], FACTORS, strict=True):
        assert entry["kind"] == factor.kind and entry["description"]
        assert tuple(entry.get("values", ())) == factor.values
        assert factor.values or (entry["low"], entry["high"]) == factor.bounds
    assert set(record["values"]) == {name for name in files if name.endswith(".png")}
    for i, (name, values) in enumerate(record["values"].items()):
        assert values == sample_factors(i, 9).tolist()
        picture = Image.open(io.BytesIO(files[name]))
        assert picture.mode == "RGB"
        assert np.array_equal(np.asarray(picture), draw(np.array(values), (48, 40)))


def test_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    write_portraits(tmp_path / "a.zip", resolution=32, num=5, seed=1)
    write_portraits(tmp_path / "b.zip", resolution=32, num=5, seed=1)
    write_portraits(tmp_path / "c.zip", resolution=32, num=5, seed=2)
    a, b, c = ((tmp_path / f"{name}.zip").read_bytes() for name in "abc")
    assert a == b != c
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_small_dataset_is_the_beginning_of_a_large_one(tmp_path: Path) -> None:
    write_portraits(tmp_path / "small.zip", resolution=32, num=3)
    write_portraits(tmp_path / "large.zip", resolution=32, num=7)
    small, large = contents(tmp_path / "small.zip"), contents(tmp_path / "large.zip")
    assert all(large[name] == data for name, data in small.items() if name != "factors.json")
    assert json.loads(small["factors.json"])["values"].items() <= json.loads(large["factors.json"])["values"].items()


def test_folder_holds_what_the_zip_holds(tmp_path: Path) -> None:
    write_portraits(tmp_path / "p.zip", resolution=32, num=3)
    write_portraits(tmp_path / "new" / "folder", resolution=32, num=3)
    assert contents(tmp_path / "new" / "folder") == contents(tmp_path / "p.zip")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]


@pytest.mark.parametrize("name", ["p.zip", "folder"])
def test_existing_target_is_kept_unless_overwriting_is_asked_for(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    write_portraits(target, resolution=16, num=3)
    before = contents(target)
    with pytest.raises(ValueError, match="exists already"):
        write_portraits(target, resolution=16, num=2)
    assert contents(target) == before
    write_portraits(target, resolution=16, num=2, overwrite=True)
    assert len(contents(target)) == 4
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_folder_of_something_else_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"dear")
    with pytest.raises(ValueError, match=r"without factors\.json"):
        write_portraits(tmp_path / "photos", num=1, overwrite=True)
    (tmp_path / "photos.zip").mkdir()
    with pytest.raises(ValueError, match="got a folder"):
        write_portraits(tmp_path / "photos.zip", num=1, overwrite=True)
    (tmp_path / "notes").write_bytes(b"dear")
    with pytest.raises(ValueError, match="got a file"):
        write_portraits(tmp_path / "notes", num=1, overwrite=True)
    assert (tmp_path / "photos" / "holiday.jpg").read_bytes() == b"dear"
    assert (tmp_path / "notes").read_bytes() == b"dear"


@pytest.mark.parametrize("name", ["p.zip", "folder"])
def test_interruption_leaves_the_old_target_and_nothing_else(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    write_portraits(target, resolution=16, num=1)
    before = contents(target)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_portraits(target, resolution=16, num=5, overwrite=True, progress=interrupt)
    assert contents(target) == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_bad_arguments_are_named_before_anything_is_written(tmp_path: Path) -> None:
    for arguments, message in (
        ({"resolution": 15}, "resolution: got 15×15"),
        ({"resolution": (64, 8)}, "resolution: got 64×8"),
        ({"num": 0}, "num: got 0"),
        ({"seed": -1}, "seed: got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            write_portraits(tmp_path / "sub" / "p.zip", **arguments)
    assert not list(tmp_path.iterdir())


def test_bad_factors_are_named() -> None:
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        draw(np.zeros(3))
    with pytest.raises(ValueError, match="got yaw 90, expected a number from -26 to 26"):
        draw(portrait(yaw=90))
    with pytest.raises(ValueError, match="got beard 4"):
        landmarks(portrait(beard=4))
    with pytest.raises(ValueError, match="got smile nan"):
        draw(portrait(smile=float("nan")))
    with pytest.raises(ValueError, match="index: got -1"):
        sample_factors(-1)
