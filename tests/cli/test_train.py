import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from styleforge import checkpoint
from styleforge.checkpoint import load_generator
from styleforge.cli import main as main_module
from styleforge.cli.main import cli
from styleforge.data.portraits import write_portraits
from styleforge.latents import generate_images
from styleforge.training.run_dir import snapshots

TINY = ["--cbase=64", "--cmax=8", "--map-depth=1", "--batch=4", "--workers=0", "--device=cpu", "--metrics=none"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "portraits.zip"
    write_portraits(path, resolution=16, num=12)
    return path


def invoke(*arguments):
    return CliRunner().invoke(cli, ["train", *map(str, arguments)])


def dry_run(*arguments):
    result = invoke(*arguments, "--dry-run")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fails(monkeypatch, capsys, *arguments):
    """Exit code and error text of the whole program."""
    monkeypatch.setattr("sys.argv", ["styleforge", "train", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main_module.main()
    return stop.value.code, capsys.readouterr().err


def test_a_run_writes_what_its_directory_should_hold_and_goes_on(data, tmp_path):
    result = invoke("--data", data, "--outdir", tmp_path, "--kimg=0.008", *TINY)
    assert result.exit_code == 0, result.output
    (run_dir,) = tmp_path.iterdir()
    assert run_dir.name == "00000-auto-portraits-gpus1-batch4-gamma0.0128"
    names = {path.name for path in run_dir.iterdir()}
    assert {"reals.png", "fakes_init.png", "fakes000000.png", "stats.jsonl", "log.txt"} <= names
    assert {"training_options.json", "network-snapshot-000000.safetensors"} <= names

    assert invoke("--resume", run_dir, "--kimg=0.016").exit_code == 0
    assert checkpoint.load(snapshots(run_dir)[-1]).info["counters"]["cur_nimg"] == 16


def test_dry_run_writes_nothing_and_shows_what_flags_set(data, tmp_path):
    config = dry_run("--data", data, "--outdir", tmp_path, "--cfg=config-f", "--gamma=3", "--cbase=128", "--mirror")
    assert list(tmp_path.iterdir()) == []
    assert (config["gamma"], config["mirror"], config["name"]) == (3, True, "config-f")
    assert config["generator"]["channel_base"] == config["discriminator"]["channel_base"] == 128
    assert config["generator"]["resolution"] == 16


def test_zero_is_a_value(data):
    config = dry_run("--data", data, "--workers=0", "--keep=0", "--gamma=0")
    assert (config["workers"], config["keep"], config["gamma"]) == (0, 0, 0)


def test_set_reaches_every_field(data):
    config = dry_run("--data", data, "--set=pl_weight=0", "--set=generator.style_block=pixel_instance", "--fp32")
    assert (config["pl_weight"], config["generator"]["style_block"]) == (0, "pixel_instance")
    assert config["precision"] == "fp32"


def test_auto_chooses_gamma_and_average_for_the_batch(data):
    config = dry_run("--data", data, "--batch=32")
    assert config["gamma"] == pytest.approx(0.0002 * 16 * 16 / 32)
    assert config["ema_kimg"] == pytest.approx(10)


def test_transfer_lists_what_it_took(data, tmp_path):
    assert invoke("--data", data, "--outdir", tmp_path, "--kimg=0.004", *TINY).exit_code == 0
    (first,) = tmp_path.iterdir()
    result = invoke("--data", data, "--outdir", tmp_path, "--kimg=0.004", "--init-from", first, *TINY)
    assert result.exit_code == 0 and "tensors copied" in result.output


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "--data nor --resume"),
        (["--data", "nowhere.zip"], "nowhere.zip"),
        (["--data", "{data}", "--cfg", "config-z"], "config-z"),
        (["--data", "{data}", "--cond"], "--cond"),
        (["--data", "{data}", "--kimg", "-1"], "--kimg"),
        (["--data", "{data}", "--batch", "6", "--batch-gpu", "4", "--cbase", "64"], "--batch-gpu"),
        (["--data", "{data}", "--set", "nonsense=1"], "--set"),
        (["--data", "{data}", "--set", "batch.size=1"], "--set"),
        (["--data", "{data}", "--set", "generator.use_noise=no"], "generator.use_noise=false"),
        (["--data", "{data}", "--set", "pl_batch_shrink=1.5"], "pl_batch_shrink"),
        (["--data", "{data}", "--batch", "0"], "--batch"),
        (["--data", "{data}", "--batch-gpu", "most"], "--batch-gpu"),
        (["--data", "{data}", "--checkpoint-from", "0"], "--checkpoint-from"),
        (["--data", "{data}", "--device", "abacus"], "abacus"),
        (["--resume", "{tmp}"], "run directory"),
        (["--resume", "{tmp}", "--gamma", "3"], "--gamma"),
        (["--data", "{data}", "--init-from", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_a_mistake_is_one_sentence(data, tmp_path, monkeypatch, capsys, arguments, part):
    filled = [argument.format(data=data, tmp=tmp_path) for argument in arguments]
    out = [] if "--resume" in filled else ["--outdir", tmp_path / "runs"]
    code, text = fails(monkeypatch, capsys, *filled, *out)
    assert code in (1, 2) and part in text
    assert "Traceback" not in text


def test_snapshots_are_measured_and_a_resumed_run_goes_on_measuring(data, tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    arguments = [*TINY[:-1], "--metrics=fid0.02k,pr0.02k3", "--extractor=random-vgg"]
    result = invoke("--data", data, "--outdir", tmp_path / "runs", "--kimg=0.008", *arguments)
    assert result.exit_code == 0, result.output
    (run_dir,) = (tmp_path / "runs").iterdir()
    options = json.loads((run_dir / "training_options.json").read_text())
    assert (options["metrics"], options["extractor"]) == ("fid0.02k,pr0.02k3", "random-vgg")
    assert invoke("--resume", run_dir, "--kimg=1.004").exit_code == 0
    lines = [json.loads(line) for line in (run_dir / "metric-fid0.02k@random-vgg.jsonl").read_text().splitlines()]
    names = [line["snapshot_pkl"] for line in lines]
    assert names[0] == "network-snapshot-000000.safetensors" and names[-1] == "network-snapshot-000001.safetensors"
    assert lines[0]["num_real"] == 12 and lines[0]["results"]["fid0.02k@random-vgg"] > 0
    assert "pr0.02k3_recall@random-vgg" in (run_dir / "log.txt").read_text()


def test_a_growing_network_is_measured_at_its_level_of_detail(data, tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    arguments = [*TINY[:-1], "--cfg=config-d", "--metrics=fid0.02k", "--extractor=random-vgg"]
    levels = []
    from styleforge.metrics import pictures

    made = pictures.GeneratedPictures.__call__
    monkeypatch.setattr(
        pictures.GeneratedPictures, "__call__", lambda self, indices: levels.append(self.lod) or made(self, indices)
    )
    assert invoke("--data", data, "--outdir", tmp_path / "runs", "--kimg=0.008", *arguments).exit_code == 0
    assert set(levels) == {1.0}  # 8×8 in a 16×16 network


@pytest.mark.parametrize(
    "arguments",
    [
        ["--metrics=fid"],
        ["--metrics=fid1k", "--extractor=resnet"],
        ["--metrics=fid1k", "--extractor=discriminator"],
        ["--metrics=is0.01k", "--extractor=random-vgg"],
        ["--metrics=pr1k15", "--extractor=random-vgg"],  # of 12 pictures
    ],
)
def test_metrics_that_cannot_be_had_are_refused_before_a_run_directory_is_made(data, tmp_path, arguments):
    result = CliRunner().invoke(cli, ["train", "--data", str(data), "--outdir", str(tmp_path / "runs"), *arguments])
    assert isinstance(result.exception, ValueError) and "got" in str(result.exception)
    assert not (tmp_path / "runs").exists()


def test_real_pictures_are_all_of_the_dataset_and_mirrored_where_training_mirrors(data, tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    arguments = [*TINY[:-1], "--metrics=fid0.02k_full,fid0.03k", "--extractor=random-vgg", "--mirror", "--subset=8"]
    assert invoke("--data", data, "--outdir", tmp_path / "runs", "--kimg=0.008", *arguments).exit_code == 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    lines = [
        json.loads((run_dir / f"metric-{name}@random-vgg.jsonl").read_text().splitlines()[0])
        for name in ("fid0.02k_full", "fid0.03k")
    ]
    assert [(line["num_real"], line["mirror"]) for line in lines] == [(12, False), (24, True)]


def test_a_growing_network_is_measured_afterwards_as_in_training(data, tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))
    metrics = ["--metrics=fid0.02k_full,ppl0.02k2_wend", "--extractor=random-vgg"]
    arguments = [*TINY[:-1], "--cfg=config-d", *metrics]
    assert invoke("--data", data, "--outdir", tmp_path / "runs", "--kimg=0.008", *arguments).exit_code == 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert not list(run_dir.glob("metric-ppl*"))  # path lengths wait until the network has grown
    command = ["evaluate", "--network", str(run_dir), "--data", str(data), "--device=cpu", *metrics[1:]]
    assert CliRunner().invoke(cli, [*command, "--metrics=fid0.02k_full"]).exit_code == 0
    lines = [json.loads(line) for line in (run_dir / "metric-fid0.02k_full@random-vgg.jsonl").read_text().splitlines()]
    assert [line["lod"] for line in lines] == [1.0] * len(lines)
    assert lines[-1]["results"] == lines[-2]["results"]
    refused = CliRunner().invoke(cli, [*command, "--metrics=ppl0.02k2_wend"])
    assert "level of detail 1" in str(refused.exception)
    pictures = CliRunner().invoke(cli, ["generate", "--network", str(run_dir), "--seeds=0", "--outdir", str(tmp_path)])
    assert pictures.exit_code == 0
    G, one = load_generator(run_dir), Image.open(tmp_path / "seed0000.png")
    (expected,) = (x for *_, x in generate_images(G, [0], lod=1.0))
    np.testing.assert_array_equal(np.asarray(one).transpose(2, 0, 1), expected[0].numpy())


def test_auto_finds_how_many_images_fit_and_keeps_the_number(data, tmp_path):
    result = invoke("--data", data, "--outdir", tmp_path, "--kimg=0.004", "--batch-gpu=auto", *TINY)
    assert result.exit_code == 0, result.output
    (run_dir,) = tmp_path.iterdir()
    assert "4 images at a time in each process (--batch-gpu auto)" in result.output
    assert json.loads((run_dir / "training_options.json").read_text())["batch_gpu"] == 4


def test_a_dry_run_leaves_auto_open(data):
    assert dry_run("--data", data, "--batch-gpu=auto")["batch_gpu"] is None


def test_a_resumed_run_may_keep_fewer_activations(data, tmp_path):
    assert invoke("--data", data, "--outdir", tmp_path, "--kimg=0.004", *TINY).exit_code == 0
    (run_dir,) = tmp_path.iterdir()
    assert invoke("--resume", run_dir, "--kimg=0.008", "--checkpoint-from=8").exit_code == 0
    assert json.loads((run_dir / "training_options.json").read_text())["checkpoint_resolution"] == 8
