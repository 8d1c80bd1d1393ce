import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from styleforge.cli import main as main_module
from styleforge.cli.data import data
from styleforge.data import ImageDataset


def run(*arguments):
    return CliRunner().invoke(data, [str(argument) for argument in arguments])


def write_pictures(folder, count=5, size=(16, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def test_pack_makes_a_dataset_and_says_so(tmp_path):
    source = write_pictures(tmp_path / "in", size=(20, 30))
    (source / "broken.png").write_bytes(b"x")
    result = run("pack", source, tmp_path / "out.zip", "--transform=center-crop", "--resolution=16x8")
    assert result.exit_code == 0, result.output
    assert f"Packed 5 of 6 pictures into {tmp_path / 'out.zip'}: 16x8 pixels, no labels." in result.output
    assert "broken.png" in result.output
    assert ImageDataset(tmp_path / "out.zip").resolution == (8, 16)


def test_source_and_dest_may_be_options(tmp_path):
    source = write_pictures(tmp_path / "in")
    for i, places in enumerate(
        (["--source", source, "--dest", tmp_path / "0.zip"], ["--dest", tmp_path / "1.zip", source])
    ):
        assert run("pack", *places).exit_code == 0
        assert len(ImageDataset(tmp_path / f"{i}.zip")) == 5
    for places in ([source], ["--source", source], [source, tmp_path / "x.zip", "--dest", tmp_path / "y.zip"]):
        result = run("pack", *places)
        assert result.exit_code == 2
        assert "expected one SOURCE and one DEST" in result.output


def test_a_dry_run_shows_the_plan(tmp_path):
    result = run("pack", write_pictures(tmp_path / "in"), tmp_path / "out.zip", "--resolution=8", "--dry-run")
    assert result.exit_code == 0
    assert "Would pack 5 pictures" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("value", ["0", "64x", "axb", "64x0", "-1"])
def test_a_malformed_resolution_is_said(tmp_path, value):
    result = run("pack", tmp_path, tmp_path / "out.zip", f"--resolution={value}")
    assert result.exit_code == 2
    assert "expected a side such as 64, or WIDTHxHEIGHT" in result.output


def test_background_takes_names_and_codes(tmp_path):
    source = write_pictures(tmp_path / "in", size=(8, 16))
    for colour in ("black", "#000000"):
        dest = tmp_path / f"{colour[0]}.zip"
        result = run("pack", source, dest, "--transform=pad", "--resolution=16", f"--background={colour}")
        assert result.exit_code == 0
        assert not ImageDataset(dest)[0][0][:, :4].any()
    assert "expected a colour such as white" in run("pack", source, dest, "--background=nothing").output


def test_check_reports_and_its_exit_code_tells(tmp_path):
    source = write_pictures(tmp_path / "in")
    result = run("check", source)
    assert result.exit_code == 0
    assert "Ready for training" in result.output
    Image.new("L", (9, 9)).save(source / "odd.png")
    (source / "broken.png").write_bytes(b"x")
    result = run("check", source)
    assert result.exit_code == 1
    assert "broken.png" in result.output
    assert "2 different sizes" in result.output
    assert "styleforge data pack" in result.output


def test_demo_draws_portraits(tmp_path):
    result = run("demo", tmp_path / "demo.zip", "--resolution=32x16", "--num=3", "--seed=1")
    assert result.exit_code == 0, result.output
    dataset = ImageDataset(tmp_path / "demo.zip")
    assert (len(dataset), dataset.resolution) == (3, (16, 32))


def test_help_has_groups_and_examples():
    result = run("pack", "--help")
    for text in ("Size:", "Colour:", "Content:", "Odd pictures:", "Output:", "Examples:", "--resize-filter"):
        assert text in result.output
    for command in ("check", "demo"):
        assert "Example:" in run(command, "--help").output


def call_main(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["styleforge", "data", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main_module.main()
    return end.value.code, capsys.readouterr().err


def test_errors_are_one_sentence_and_an_exit_code(tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.zip").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    for path, message in (
        ("missing", "no such file or folder"),
        ("empty", "got a folder without pictures"),
        ("file.zip", "this is no zip"),
        ("none.zip", "got a zip without pictures"),
    ):
        for verb in (["check", tmp_path / path], ["pack", tmp_path / path, tmp_path / "out.zip"]):
            code, text = call_main(monkeypatch, capsys, *verb)
            assert code == 1
            assert text.startswith("Error: ")
            assert message in text
            assert text.count("\n") == 1
    assert not Path(tmp_path / "out.zip").exists()


def test_the_shell_gets_the_exit_code_of_check(tmp_path, monkeypatch, capsys):
    source = write_pictures(tmp_path / "in")
    assert call_main(monkeypatch, capsys, "check", source)[0] == 0
    stream = io.BytesIO()
    Image.new("L", (9, 9)).save(stream, "png")
    (source / "odd.png").write_bytes(stream.getvalue())
    assert call_main(monkeypatch, capsys, "check", source)[0] == 1
