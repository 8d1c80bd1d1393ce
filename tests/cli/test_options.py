import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageSequence
from tiny_generators import save_tiny, tiny_generator

from styleforge import checkpoint
from styleforge.cli.generate import generate
from styleforge.cli.mix import mix
from styleforge.cli.video import video
from styleforge.latents import find_directions, generate_ws, synthesize


@pytest.fixture
def network(tmp_path):
    return save_tiny(tmp_path)


@pytest.fixture
def directions(tmp_path):
    """Three directions of the network, and their file."""
    found = find_directions(tiny_generator(), num=3, num_samples=500)
    found.save(tmp_path / "d.safetensors")
    return found


def run(command, network, *arguments):
    result = CliRunner().invoke(command, ["--network", network, *(str(argument) for argument in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def picture(directions, seed, index, strength):
    """What should come out."""
    G = tiny_generator()
    (images_uint8,) = synthesize(G, directions.apply(generate_ws(G, [seed]), index, strength))
    return images_uint8[0].permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize(("suffix", "index", "strength"), [("", 0, None), (":2", 2, "-1.5"), (":1", 1, "3")])
def test_pictures_are_moved_along_a_direction(tmp_path, network, directions, suffix, index, strength):
    more = [] if strength is None else ["--strength", strength]
    file = tmp_path / "d.safetensors"
    result = run(generate, network, "--seeds=4", "--direction", f"{file}{suffix}", *more, "--outdir", tmp_path / "out")
    assert result.exit_code == 0 and "Note" not in result.output
    expected = picture(directions, 4, index, float(strength or 2))
    assert abs(pixels(tmp_path / "out" / "seed0004.png") - expected).max() <= 1


def test_a_range_makes_a_row_of_the_grid_for_each_strength(tmp_path, network, directions):
    out = tmp_path / "out"
    range_of = ["--direction", tmp_path / "d.safetensors:1", "--strength=-2:2:2"]
    result = run(generate, network, "--seeds=4,6", *range_of, "--outdir", out)
    assert result.exit_code == 0 and "Wrote 6 pictures" in result.output
    grid = pixels(out / "grid.png")
    assert grid.shape == (3 * 16, 2 * 16, 3)
    for row, strength in enumerate((-2, 0, 2)):
        for column, seed in enumerate((4, 6)):
            expected = picture(directions, seed, 1, strength)
            assert abs(pixels(out / f"seed{seed:04d}-strength{strength:+d}.png") - expected).max() <= 1
            cell = grid[16 * row : 16 * (row + 1), 16 * column : 16 * (column + 1)]
            assert abs(cell - expected).max() <= 1
    with np.load(out / "latents.npz") as latents:
        assert latents["seeds"].tolist() == [4, 6] * 3 and latents["ws"].shape == (6, 6, 8)
        ws = torch.from_numpy(latents["ws"])
    torch.testing.assert_close(ws[4:], directions.apply(generate_ws(tiny_generator(), [4, 6]), 1, 2))


def test_projections_are_moved_too(tmp_path, network, directions):
    run(generate, network, "--seeds=4", "--outdir", tmp_path / "a")
    moved = ["--direction", tmp_path / "d.safetensors", "--strength=-1:1"]
    result = run(generate, network, "--projected", tmp_path / "a" / "latents.npz", *moved, "--outdir", tmp_path / "b")
    assert result.exit_code == 0
    for strength in (-1, 0, 1):
        expected = picture(directions, 4, 0, strength)
        assert abs(pixels(tmp_path / "b" / f"proj00-strength{strength:+d}.png") - expected).max() <= 1


def test_mixes_take_one_strength(tmp_path, network, directions):
    moved = ["--direction", tmp_path / "d.safetensors"]
    result = run(mix, network, "--rows=4", "--cols=6", *moved, "--strength=1", "--outdir", tmp_path / "out")
    assert result.exit_code == 0
    assert abs(pixels(tmp_path / "out" / "4-4.png") - picture(directions, 4, 0, 1)).max() <= 1
    result = run(mix, network, "--rows=4", "--cols=6", *moved, "--strength=-1:1", "--outdir", tmp_path / "out")
    assert result.exit_code == 2 and "got a range" in result.output


def test_a_video_swings_through_the_range_and_back(tmp_path, network, directions):
    path = tmp_path / "x.webp"
    moved = ["--direction", tmp_path / "d.safetensors", "--strength=-2:2"]
    result = run(video, network, "--seeds=4", "--num-keyframes=2", "--w-frames=4", *moved, "--output", path)
    assert result.exit_code == 0, result.output
    frames = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(Image.open(path))]
    strengths = [-2 * math.cos(2 * math.pi * k / 8) for k in range(8)]
    pictures = [picture(directions, 4, 0, strength) for strength in strengths[:5]]
    nearest = [int(np.argmin([abs(frame - one).mean() for one in pictures])) for frame in frames]  # the format is lossy
    assert nearest == [0, 1, 2, 3, 4, 3, 2, 1]


def test_directions_of_other_weights_are_used_with_a_note(tmp_path, directions):
    G = tiny_generator()
    G.mapping.fc0.weight.mul_(1.1)
    checkpoint.save(tmp_path / "other.safetensors", G_ema=G)
    arguments = ["--seeds=0", "--direction", tmp_path / "d.safetensors", "--outdir", tmp_path / "out"]
    result = run(generate, tmp_path / "other.safetensors", *arguments)
    assert result.exit_code == 0 and result.output.count("made for other weights") == 1


def test_directions_of_other_sizes_are_one_sentence(tmp_path, directions, refuses):
    with refuses("d.safetensors", "--direction"):
        run(generate, save_tiny(tmp_path, "non-square"), "--seeds=0", "--direction", tmp_path / "d.safetensors:9")


@pytest.mark.parametrize("text", ["x", "3:-3", "1:2:0", "0:1000", "1:2:3:4", "nan", "0:nan"])
def test_strengths_that_are_none_are_usage_errors(network, text):
    result = run(generate, network, "--seeds=0", "--direction=d.safetensors", f"--strength={text}")
    assert result.exit_code == 2 and "FIRST:LAST" in result.output


def test_a_strength_needs_a_direction(network):
    result = run(generate, network, "--seeds=0", "--strength=2")
    assert result.exit_code == 2 and "expected --direction FILE" in result.output
