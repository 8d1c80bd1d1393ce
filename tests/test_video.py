import importlib.util
import itertools
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from styleforge.video import MAX_FPS, check_video, write_video

needs_ffmpeg = pytest.mark.skipif(importlib.util.find_spec("imageio_ffmpeg") is None, reason="needs the video extra")
ENDINGS = ["gif", "webp", pytest.param("mp4", marks=needs_ffmpeg)]


def frames_of(num=6, channels=3, size=(16, 24)):
    """Even colours, each frame another."""
    return [torch.full((channels, *size), 40 * i % 256, dtype=torch.uint8) for i in range(num)]


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def read(path):
    """[T, H, W, 3] uint8 and the durations in ms of an animation."""
    if path.suffix == ".mp4":
        import imageio_ffmpeg

        reader = imageio_ffmpeg.read_frames(str(path))
        meta = next(reader)
        width, height = meta["size"]
        pixels = [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader]
        return np.stack(pixels), [1000 / meta["fps"]] * len(pixels)
    pixels, durations = [], []
    with Image.open(path) as picture:
        assert picture.info["loop"] == 0  # for ever
        for frame in ImageSequence.Iterator(picture):
            pixels.append(np.asarray(frame.convert("RGB")))
            durations.append(frame.info["duration"])
    return np.stack(pixels), durations


@pytest.mark.parametrize("ending", ENDINGS)
def test_frames_come_back_in_order(tmp_path, ending):
    frames = frames_of()
    path = tmp_path / "made" / f"x.{ending}"
    assert write_video(iter(frames), path, 20) == 6
    pixels, durations = read(path)
    expected = torch.stack(frames).permute(0, 2, 3, 1).numpy()
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 4
    assert durations == [50] * 6
    assert names_in(path.parent) == [path.name]


@needs_ffmpeg
def test_an_mp4_keeps_colours(tmp_path):
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [192, 67, 251]], dtype=torch.uint8)
    write_video([colour[:, None, None].expand(3, 32, 32) for colour in colours], tmp_path / "x.mp4", 10)
    pixels, _ = read(tmp_path / "x.mp4")
    assert np.abs(pixels[:, 16, 16].astype(int) - colours.numpy()).max() <= 6


@pytest.mark.parametrize("fps", [7, 12.5, 24, 30, 48])
@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_a_second_lasts_a_second(tmp_path, ending, fps):
    num = round(2 * fps)
    write_video((frame for frame in frames_of(num, size=(2, 2))), tmp_path / f"x.{ending}", fps)
    _, durations = read(tmp_path / f"x.{ending}")
    unit = 10 if ending == "gif" else 1
    assert abs(sum(durations) - 1000 * num / fps) <= unit
    assert max(durations) - min(durations) <= unit


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_every_number_of_channels_can_be_shown_and_alpha_over_white(tmp_path, ending, channels):
    frames = frames_of(2, channels, (16, 32))
    if channels in (2, 4):
        for frame in frames:
            frame[-1, :, :16], frame[-1, :, 16:] = 0, 255
    write_video(frames, tmp_path / f"x.{ending}", 10)
    pixels, _ = read(tmp_path / f"x.{ending}")
    assert np.abs(pixels[:, 8, 24].astype(int) - [[0], [40]]).max() <= 4
    left = [[255], [255]] if channels in (2, 4) else [[0], [40]]
    assert np.abs(pixels[:, 8, 8].astype(int) - left).max() <= 4


@needs_ffmpeg
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (8, 5), (33, 31)])
def test_an_odd_side_of_an_mp4_grows_by_a_pixel(tmp_path, size):
    frames = [torch.full((3, *size), value, dtype=torch.uint8) for value in (90, 180)]
    write_video(frames, tmp_path / "x.mp4", 10)
    pixels, _ = read(tmp_path / "x.mp4")
    assert pixels.shape == (2, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert np.abs(pixels[0].astype(int) - 90).max() <= 4  # repeated, not black


@needs_ffmpeg
def test_an_mp4_is_written_as_the_frames_come(tmp_path):
    alive = 0

    def count_and_make():
        nonlocal alive
        for i in range(400):
            frame = torch.full((3, 128, 128), i % 256, dtype=torch.uint8)
            alive += 1
            yield frame

    assert write_video(itertools.islice(count_and_make(), 300), tmp_path / "x.mp4", 60) == 300
    assert alive == 300
    assert len(read(tmp_path / "x.mp4")[0]) == 300


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(b"old")

    def break_off():
        yield from frames_of(3)
        raise ValueError("the model is gone")

    for frames, message in ((break_off(), "the model is gone"), ([], "got none .* expected at least one")):
        with pytest.raises(ValueError, match=message):
            write_video(frames, path, 10)
        assert path.read_bytes() == b"old"
        assert names_in(tmp_path) == [path.name]
    write_video(frames_of(2), path, 10)
    assert len(read(path)[0]) == 2


@needs_ffmpeg
def test_what_ffmpeg_says_is_said(tmp_path, monkeypatch):
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho 'first line' >&2\necho 'No space left on device' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(broken))
    frames = [torch.zeros(3, 512, 512, dtype=torch.uint8)] * 20  # more than a pipe holds
    with pytest.raises(OSError, match=r"x\.mp4: could not be written \(No space left on device\); free some space"):
        write_video(frames, tmp_path / "x.mp4", 10)
    assert names_in(tmp_path) == ["ffmpeg"]


def test_a_target_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "x.gif").mkdir()
    with pytest.raises(OSError, match=r"x\.gif: could not be written"):
        write_video(frames_of(2), tmp_path / "x.gif", 10)
    assert names_in(tmp_path) == ["x.gif"]


@pytest.mark.parametrize("name", ["x.avi", "x", "mp4"])
def test_an_unknown_ending_is_refused(refuses, name):
    with refuses(name, ".mp4, .gif, .webp"):
        check_video(name, 10)


@pytest.mark.parametrize("ending", MAX_FPS)
def test_a_rate_that_players_cannot_show_is_refused(refuses, ending):
    for fps in (0, -1, MAX_FPS[ending] + 1, float("nan"), float("inf")):
        with refuses("fps", str(MAX_FPS[ending]), "--fps"):
            check_video(f"x{ending}", fps)


def test_mp4_without_the_extra_names_it_and_what_works_without(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    for act in (lambda: check_video("x.mp4", 10), lambda: write_video(frames_of(), tmp_path / "x.mp4", 10)):
        with pytest.raises(ValueError) as info:
            act()
        assert 'pip install "styleforge[video]"' in str(info.value)
        assert ".gif or .webp" in str(info.value)
    assert names_in(tmp_path) == []
    assert write_video(frames_of(), tmp_path / "x.gif", 10) == 6
