import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_generators import CASES, save_tiny, tiny_generator

from styleforge import images
from styleforge.cli.mix import mix
from styleforge.latents import GaussianLatents, generate_ws

LABELS = {"conditional": ["--class=1"], "labels-as-matrix": ["--class=1"]}


def run(*arguments):
    return CliRunner().invoke(mix, [str(argument) for argument in arguments])


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


@pytest.mark.parametrize("kind", CASES)
def test_the_matrix_has_the_sources_in_its_first_row_and_column(tmp_path, kind):
    network, out = save_tiny(tmp_path, kind), tmp_path / "out"
    result = run("--network", network, "--rows=85,100", "--cols=55,821,9", f"--outdir={out}", *LABELS.get(kind, []))
    assert result.exit_code == 0, result.output
    assert result.output == f"Wrote 11 pictures and grid.png to {out}.\n"
    height, width = tiny_generator(kind).config.size
    sheet = pixels(out / "grid.png")
    assert sheet.shape[:2] == (3 * height, 4 * width)
    assert (sheet[:height, :width] == 255).all()
    cells = {(0, j): (col, col) for j, col in enumerate((55, 821, 9), 1)}
    for i, row in enumerate((85, 100), 1):
        cells |= {(i, 0): (row, row)} | {(i, j): (row, col) for j, col in enumerate((55, 821, 9), 1)}
    for (i, j), (row, col) in cells.items():
        cell = sheet[i * height : (i + 1) * height, j * width : (j + 1) * width]
        assert np.array_equal(cell, pixels(out / f"{row}-{col}.png"))
    assert len(list(out.iterdir())) == 11 + 1


def test_the_styles_of_all_layers_give_the_column(tmp_path):
    command = ["--network", save_tiny(tmp_path), "--row-seeds=1,2", "--col-seeds=3,4", f"--outdir={tmp_path}"]
    for flag in ("--styles", "--col-styles"):
        assert run(*command, f"{flag}=0-5").exit_code == 0
        for row in (1, 2):
            for col in (3, 4):
                assert np.abs(pixels(tmp_path / f"{row}-{col}.png") - pixels(tmp_path / f"{col}-{col}.png")).max() <= 1


@pytest.mark.parametrize(("styles", "layers"), [("--styles=1,4-5", [1, 4, 5]), ("--batch=2", [0, 1, 2, 3, 4])])
def test_a_picture_is_its_rows_with_some_layers_of_its_columns(tmp_path, styles, layers):
    G = tiny_generator()
    command = ["--network", save_tiny(tmp_path), "--rows=1", "--cols=3", "--trunc=0.7", f"--outdir={tmp_path}"]
    assert run(*command, styles).exit_code == 0
    ws, other = generate_ws(G, [1, 3], truncation_psi=0.7).split(1)
    ws[:, layers] = other[:, layers]
    expected = images.to_uint8(G.synthesis(ws, noise_mode="const"))[0].permute(1, 2, 0).numpy()
    assert np.abs(pixels(tmp_path / "1-3.png") - expected).max() <= 1
    assert np.abs(pixels(tmp_path / "1-3.png") - pixels(tmp_path / "1-1.png")).max() > 8


def test_rows_and_columns_are_compressed(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    G = tiny_generator()
    command = ["--network", save_tiny(tmp_path), "--rows=1", "--cols=3", "--styles=1,4-5", f"--outdir={tmp_path}"]
    assert run(*command, "--compress=0.5").exit_code == 0
    ws, other = GaussianLatents.fit(G).compress(generate_ws(G, [1, 3]), 0.5).split(1)
    ws[:, [1, 4, 5]] = other[:, [1, 4, 5]]
    expected = images.to_uint8(G.synthesis(ws, noise_mode="const"))[0].permute(1, 2, 0).numpy()
    assert np.abs(pixels(tmp_path / "1-3.png") - expected).max() <= 1
    assert run(*command).exit_code == 0
    assert np.abs(pixels(tmp_path / "1-3.png") - expected).max() > 8


def test_a_seed_mixed_with_itself_stays(tmp_path):
    for noise_mode in ("const", "random"):
        command = ["--network", save_tiny(tmp_path), "--rows=1,2", "--cols=2", f"--noise-mode={noise_mode}"]
        result = run(*command, f"--outdir={tmp_path / noise_mode}")
        assert "Wrote 3 pictures" in result.output  # 1-1, 1-2, 2-2
        sheet = pixels(tmp_path / noise_mode / "grid.png")
        for i, j in ((0, 1), (2, 0), (2, 1)):
            cell = sheet[16 * i : 16 * i + 16, 16 * j : 16 * j + 16]
            assert np.abs(cell - pixels(tmp_path / noise_mode / "2-2.png")).max() <= 1


@pytest.mark.parametrize(
    ("kind", "arguments", "part"),
    [
        ("square", ["--styles=0-6"], "styles: got '0-6' in '0-6', expected numbers from 0 to 5"),
        ("square", ["--styles=fine"], "styles: got 'fine'"),
        ("square", ["--class=0"], "unconditional"),
        ("conditional", [], "from 0 to 2"),
        ("conditional", ["--class=all"], "expected one class or label"),
    ],
)
def test_what_the_network_cannot_do_is_refused(tmp_path, refuses, kind, arguments, part):
    result = run(
        "--network", save_tiny(tmp_path, kind), "--rows=1", "--cols=2", "--outdir", tmp_path / "out", *arguments
    )
    assert result.exit_code == 1
    with refuses(part):
        raise result.exception
    assert not (tmp_path / "out").exists()


def test_both_sides_are_required(tmp_path):
    result = run("--network", save_tiny(tmp_path), "--rows=1")
    assert result.exit_code == 2
    assert "--cols" in result.output
    assert "Examples:" in run("--help").output
