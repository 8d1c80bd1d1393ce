import json

import numpy as np
from click.testing import CliRunner
from PIL import Image
from tiny_generators import save_tiny

from styleforge.cli.analyze import analyze


def spectra(*arguments):
    return CliRunner().invoke(analyze, ["spectra", *(str(argument) for argument in arguments)])


def write_noise(folder, num, side):
    folder.mkdir()
    for i in range(num):
        noise = np.random.RandomState(i).randint(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


def test_spectra_are_compared_with_the_data_and_written(tmp_path):
    data, out = write_noise(tmp_path / "data", 5, 16), tmp_path / "out"
    result = spectra("--network", save_tiny(tmp_path), "--num=8", "--data", data, "--outdir", out)
    assert result.exit_code == 0, result.output
    values = json.loads((out / "spectra.json").read_text())
    assert values["summary"] in result.output and values["settings"]["data"] == str(data)
    assert values["real"]["high_share"] > 0.5  # noise
    assert (out / "spectra.png").exists()


def test_without_data_the_generated_pictures_stand_alone(tmp_path):
    result = spectra("--network", save_tiny(tmp_path, "config-a"), "--num=4", "--lod=1", "--outdir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "out" / "spectra.json").read_text())
    assert "real" not in values and list(values["layers"]) == ["b8.conv0", "b8.conv1"]


def test_data_of_another_size_is_one_sentence(tmp_path):
    data = write_noise(tmp_path / "data", 2, 8)
    result = spectra("--network", save_tiny(tmp_path), "--data", data, "--outdir", tmp_path / "out")
    assert isinstance(result.exception, ValueError) and "--data" in str(result.exception)
    assert not (tmp_path / "out").exists()
