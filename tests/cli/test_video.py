import importlib.util
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageSequence
from tiny_generators import CASES, save_tiny, tiny_generator

from styleforge.cli.generate import generate
from styleforge.cli.video import video

LABELS = {"conditional": ["--class=1"], "labels-as-matrix": ["--class=1"]}


def run(*arguments, command=video):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def made(*arguments, command=video):
    result = run(*arguments, command=command)
    assert result.exit_code == 0, result.output
    return result.output


def frames_of(path):
    with Image.open(path) as animation:
        return [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(animation)]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def looks_like(frame, picture):
    """Whether they are the same but for a GIF's colours."""
    return np.abs(frame - picture).mean() < 8


@pytest.fixture
def network(tmp_path):
    return save_tiny(tmp_path)


@pytest.mark.parametrize("space", ["w", "z"])
@pytest.mark.parametrize("kind", CASES)
def test_every_kind_of_network_makes_a_video(tmp_path, kind, space):
    G, path = tiny_generator(kind), tmp_path / "x.webp"
    text = made(
        *("--network", save_tiny(tmp_path, kind), "--seeds=0-5", "--grid=2x1", "--w-frames=3", "--fps=10"),
        *(f"--space={space}", f"--output={path}", *LABELS.get(kind, [])),
    )
    height, width = G.config.size
    assert text == f"Wrote {path}: 9 frames of {2 * width}x{height}, 0.9 s.\n"
    frames = frames_of(path)
    assert len(frames) == 9 and frames[0].shape == (height, 2 * width, 3)


@pytest.mark.parametrize("space", ["w", "z"])
def test_cells_pass_the_pictures_of_their_seeds_one_after_another(tmp_path, network, space):
    command = ["--network", network, "--seeds=0-5", "--trunc=0.7"]
    made(*command, "--no-grid", f"--outdir={tmp_path}", command=generate)
    path = tmp_path / "x.gif"
    made(*command, "--grid=1x2", "--w-frames=4", f"--space={space}", "--output", path)
    frames = frames_of(path)
    singles = [pixels(tmp_path / f"seed{seed:04d}.png") for seed in range(6)]
    for k in range(3):
        assert looks_like(frames[4 * k][:16], singles[k])
        assert looks_like(frames[4 * k][16:], singles[3 + k])
    assert not looks_like(frames[2][:16], singles[0])


def test_seeds_are_used_again_for_more_keyframes(tmp_path, network):
    path = tmp_path / "x.gif"
    made("--network", network, "--seeds=0-2", "--grid=2x1", "--num-keyframes=2", "--w-frames=2", "--output", path)
    frames = frames_of(path)  # left 0 1, right 2 0
    assert len(frames) == 4
    assert looks_like(frames[0][:, :16], frames[2][:, 16:])


def test_projections_are_keyframes(tmp_path, network):
    for seed in (3, 8):
        made("--network", network, f"--seeds={seed}", f"--outdir={tmp_path / str(seed)}", command=generate)
    names = ",".join(str(tmp_path / seed / "latents.npz") for seed in ("3", "8"))
    made("--network", network, "--projected", names, "--w-frames=3", "--output", tmp_path / "x.gif")
    frames = frames_of(tmp_path / "x.gif")
    assert len(frames) == 6
    assert looks_like(frames[0], pixels(tmp_path / "3/seed0003.png"))
    assert looks_like(frames[3], pixels(tmp_path / "8/seed0008.png"))
    assert looks_like(frames[1], frames[5])  # two keyframes: to and fro


@pytest.mark.parametrize("source", ["--space=w", "--space=z", "--projected"])
def test_every_frame_is_compressed(tmp_path, network, monkeypatch, source):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    seeds = ["--seeds=0-2", "--no-grid"]
    made("--network", network, *seeds, f"--outdir={tmp_path}", command=generate)
    keyframes = ["--seeds=0-2", source]
    if source == "--projected":
        keyframes = [f"--projected={tmp_path / 'latents.npz'}"]
    plain, compressed = tmp_path / "plain.gif", tmp_path / "compressed.gif"
    made("--network", network, *keyframes, "--w-frames=2", "--output", plain)
    made("--network", network, *keyframes, "--w-frames=2", "--compress=0.1", "--output", compressed)
    made("--network", network, *seeds, "--compress=0.1", f"--outdir={tmp_path}", command=generate)
    frames = frames_of(compressed)
    for k in range(3):
        assert looks_like(frames[2 * k], pixels(tmp_path / f"seed{k:04d}.png"))
    assert all(not looks_like(*pair) for pair in zip(frames, frames_of(plain), strict=True))


@pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None, reason="needs the video extra (imageio[ffmpeg])"
)
def test_mp4_runs_two_seconds_between_keyframes_at_60_per_second(tmp_path, network):
    import imageio_ffmpeg

    path = tmp_path / "lerp.mp4"
    assert "240 frames of 16x16, 4.0 s" in made("--network", network, "--seeds=0-1", "--output", path)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert (frames, round(seconds, 2)) == (240, 4.0)


def test_mp4_without_the_extra_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    result = run("--network", "missing", "--seeds=0-1", "--output", tmp_path / "x.mp4")
    assert 'pip install "styleforge[video]"' in str(result.exception)


def test_a_gif_runs_at_25_per_second(tmp_path, network):
    text = made("--network", network, "--seeds=0-1", "--w-frames=5", "--output", tmp_path / "x.gif")
    assert "10 frames of 16x16, 0.4 s" in text
    with Image.open(tmp_path / "x.gif") as animation:
        assert (animation.info["duration"], animation.info["loop"]) == (40, 0)


@pytest.mark.parametrize(
    ("kind", "arguments", "part"),
    [
        ("square", ["--seeds=0-6", "--grid=3x2"], "seeds: got 7 for 6 cells"),
        ("square", ["--seeds=0-5", "--grid=3x2"], "give 12, or set --num-keyframes"),
        ("square", ["--seeds=0"], "got 1 for 1 cells"),
        ("square", ["--seeds=0-1", "--class=2"], "unconditional"),
        ("square", ["--seeds=0-1", "--lod=1"], "lod: got 1.0"),
        ("conditional", ["--seeds=0-1"], "from 0 to 2"),
        ("conditional", ["--seeds=0-1", "--class=all"], "expected one class"),
        ("square", ["--seeds=0-1", "--fps=90"], "fps: got 90"),
        ("square", ["--seeds=0-1", "--fps=0"], "fps: got 0"),
        ("square", ["--seeds=0-1", "--output=x.avi"], "x.avi: got the ending '.avi'"),
        ("square", ["--projected=one.npz"], "projected: got 1 for 1 cells"),
    ],
)
def test_what_cannot_be_made_is_refused(tmp_path, monkeypatch, refuses, kind, arguments, part):
    monkeypatch.chdir(tmp_path)
    G = tiny_generator()
    np.savez("one.npz", w=np.zeros((1, G.num_ws, G.w_dim)))
    result = run("--network", save_tiny(tmp_path, kind), "--output=x.gif", *arguments)
    assert result.exit_code == 1
    with refuses(part):
        raise result.exception
    assert {path.name for path in tmp_path.iterdir()} == {"one.npz", f"{kind}.safetensors"}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "expected one of --seeds and --projected"),
        (["--seeds=0-1", "--projected=x.npz"], "expected one of --seeds and --projected"),
        (["--projected=x.npz", "--space=z"], "expected neither --space z, --class nor --trunc"),
        (["--projected=x.npz", "--trunc=0.5"], "expected neither --space z, --class nor --trunc"),
        (["--seeds=0-1", "--noise-mode=random"], "would flicker"),
        (["--seeds=0-1", "--grid=wide"], "got 'wide', expected a side"),
    ],
)
def test_flags_that_do_not_fit_are_a_usage_error(network, arguments, part):
    result = run("--network", network, *arguments)
    assert result.exit_code == 2
    assert part in " ".join(result.output.split())


def test_help_has_groups_and_examples():
    text = run("--help").output
    for part in ("Model:", "Path:", "Output:", "Examples:", "--w-frames", "--num-keyframes"):
        assert part in text
