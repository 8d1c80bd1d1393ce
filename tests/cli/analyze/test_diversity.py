import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_generators import save_tiny

from styleforge.cli.analyze import analyze


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for i in range(45):
        noise = np.random.RandomState(i).randint(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "data" / f"{i}.png")
    return tmp_path / "data"


def diversity(*arguments):
    return CliRunner().invoke(analyze, ["diversity", *(str(argument) for argument in arguments)])


def test_corrections_are_compared_and_written(tmp_path, data):
    out, sizes = tmp_path / "out", ["--num=40", "--num-fid=40", "--psi=0.6,0.8", "--taus=0.2,1", "--batch=20"]
    result = diversity("--network", save_tiny(tmp_path), "--data", data, *sizes, "--outdir", out)
    assert result.exit_code == 0, result.output
    values = json.loads((out / "diversity.json").read_text())
    assert values["summary"] in result.output and values["metric"] == "fid@random-vgg"
    assert [psi for psi, _ in values["fid_by_psi"]] == [1, 0.8, 0.6]
    assert [tau for tau, _ in values["fid_by_tau"]] == [1, 0.2]
    assert (out / "diversity.png").exists() and (out / "diversity-pictures.png").exists()


@pytest.mark.parametrize("numbers", ["x", "", "0", "1,-1", "inf"])
def test_numbers_that_are_none_are_usage_errors(numbers):
    result = diversity("--network=demo", "--data=x", f"--psi={numbers}")
    assert result.exit_code == 2 and "numbers above 0" in result.output


def test_data_of_another_size_is_one_sentence(tmp_path, data):
    result = diversity("--network", save_tiny(tmp_path, "non-square"), "--data", data, "--outdir", tmp_path / "out")
    assert isinstance(result.exception, ValueError) and "--data" in str(result.exception)
    assert not (tmp_path / "out").exists()
