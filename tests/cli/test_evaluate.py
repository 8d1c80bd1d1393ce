import json
import shutil

import pytest
from click.testing import CliRunner
from tiny_generators import save_tiny
from tiny_pictures import write_pictures

from styleforge.cli.evaluate import Range
from styleforge.cli.main import cli

STAND_IN = ["--extractor=random-vgg", "--device=cpu"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def network(tmp_path):
    return save_tiny(tmp_path)


@pytest.fixture
def data(tmp_path):
    return write_pictures(tmp_path / "real.zip", 40)


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


def evaluate(*arguments):
    result = invoke("evaluate", *STAND_IN, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_numbers_are_shown_and_kept(network, data, tmp_path):
    arguments = ["--network", network, "--data", data, "--metrics=fid0.05k_full,pr0.03k3", "--outdir", tmp_path / "out"]
    assert "pr0.03k3_recall@random-vgg" in evaluate(*arguments)
    evaluate(*arguments, "--batch=3")
    first, second = (
        json.loads(line)["results"]["fid0.05k_full@random-vgg"]
        for line in (tmp_path / "out" / "metric-fid0.05k_full@random-vgg.jsonl").read_text().splitlines()
    )
    assert first == pytest.approx(second, rel=1e-6)


def test_a_runs_metrics_lie_in_the_run(network, data, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(network, run / "network-snapshot-000004.safetensors")
    (run / "training_options.json").write_text("{}")
    evaluate("--network", run, "--data", data, "--metrics=fid0.03k")
    (line,) = (run / "metric-fid0.03k@random-vgg.jsonl").read_text().splitlines()
    assert json.loads(line)["snapshot_pkl"] == "network-snapshot-000004.safetensors"


@pytest.mark.parametrize(
    ("flag", "name"), [("--sweep-trunc=0.5:1:0.25", "trunc"), ("--sweep-compress=1:2:1", "compress")]
)
def test_sweeps_measure_at_every_value(network, data, tmp_path, flag, name):
    out = tmp_path / "out"
    text = evaluate("--network", network, "--data", data, "--metrics=fid0.03k,pr0.03k3", flag, "--outdir", out)
    values = [point[name] for point in json.loads((out / f"sweep-{name}.json").read_text())]
    assert values == ([0.5, 0.75, 1.0] if name == "trunc" else [1.0, 2.0])
    assert (out / f"sweep-{name}.png").stat().st_size > 1000 and f"{name} 1: fid0.03k@random-vgg" in text


def test_a_killed_sweep_goes_on(network, data, tmp_path, monkeypatch):
    from styleforge.metrics.pictures import GeneratedPictures

    arguments = ["--network", network, "--data", data, "--metrics=fid0.03k", "--outdir", tmp_path / "out"]
    made, seen = GeneratedPictures.__call__, []

    def dies(self, indices):
        seen.append(self.truncation_psi)
        if self.truncation_psi == 1 and seen.count(0.5):
            raise KeyboardInterrupt
        return made(self, indices)

    with monkeypatch.context() as patch:
        patch.setattr(GeneratedPictures, "__call__", dies)
        assert invoke("evaluate", *STAND_IN, *arguments, "--sweep-trunc=0.5:1:0.5").exit_code != 0
    assert not (tmp_path / "out").exists()  # no half sweep
    seen.clear()
    monkeypatch.setattr(
        GeneratedPictures, "__call__", lambda self, indices: seen.append(self.truncation_psi) or made(self, indices)
    )
    evaluate(*arguments, "--sweep-trunc=0.5:1:0.5")
    assert set(seen) == {1.0}
    assert len((tmp_path / "out" / "metric-fid0.03k@random-vgg.jsonl").read_text().splitlines()) == 2
    seen.clear()
    evaluate(*arguments, "--sweep-trunc=0.5:1:0.5")
    assert set(seen) == {0.5, 1.0}  # a sweep that was complete is measured anew


@pytest.mark.parametrize("flag", ["--trunc=0.7", "--compress=2", "--lod=1"])
def test_single_pictures_are_those_of_the_whole_latent_space(network, flag):
    result = invoke("evaluate", "--network", network, "--per-image-ppl", "12", flag)
    assert result.exit_code == 2 and "expected none of them" in result.output


@pytest.mark.parametrize(
    "flags", [["--sweep-trunc=0.5:1:0.5", "--trunc=0.7"], ["--sweep-compress=1:2:1", "--compress=1"]]
)
def test_a_value_beside_its_sweep_is_a_usage_error(network, flags):
    result = invoke("evaluate", "--network", network, *flags)
    assert result.exit_code == 2 and "sweep of the same" in result.output


def test_a_sweep_that_cannot_go_to_its_end_does_not_begin(network, data, monkeypatch):
    from styleforge.metrics import ppl

    monkeypatch.setattr(ppl, "_view", lambda *_: pytest.fail("it has begun"))
    arguments = ["--network", network, "--metrics=ppl0.02k2_wend", "--sweep-trunc=1:1.2:0.1"]
    with pytest.raises(ValueError, match="changed latents"):
        invoke("evaluate", *STAND_IN, *arguments)


def test_ranges_end_at_or_before_the_last():
    assert Range().convert("0.3:0.8:0.3", None, None) == [0.3, 0.6]
    assert Range().convert("0.3:1.0:0.1", None, None) == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_a_sweep_of_compressions_starts_above_zero(network):
    result = invoke("evaluate", "--network", network, "--sweep-compress=0:1:0.5")
    assert result.exit_code == 2 and "above 0" in result.output


def test_single_pictures_are_ranked(network, tmp_path):
    text = evaluate("--network", network, "--per-image-ppl", "12", "--outdir", tmp_path / "out")
    assert "per_image_ppl@random-vgg of 12 pictures" in text
    assert len(list((tmp_path / "out").iterdir())) == 4


@pytest.mark.parametrize("text", ["0.3", "1:0:0.1", "0:1:0", "0:1:-1", "a:b:c", "0:1000:1"])
def test_what_is_no_range_is_a_usage_error(network, text):
    result = invoke("evaluate", "--network", network, f"--sweep-trunc={text}")
    assert result.exit_code == 2 and "0.3:1.0:0.1" in result.output


def test_weights_that_are_missing_are_named(network, data, tmp_path, monkeypatch, capsys):
    from styleforge.cli import main as main_module

    monkeypatch.setattr(
        "sys.argv",
        ["styleforge", "evaluate", "--network", network, "--data", data, "--offline", "--weights-dir", str(tmp_path)],
    )
    with pytest.raises(SystemExit) as stop:
        main_module.main()
    message = capsys.readouterr().err
    assert stop.value.code == 1 and "Traceback" not in message
    for part in ("weights-inception-2015-12-05-6726825d.pth", "http", "random-vgg"):
        assert part in message
