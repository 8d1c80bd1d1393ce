import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import CONTEXT, free_port, run_ranks, start

from styleforge import checkpoint, dist
from styleforge.checkpoint import SUFFIX
from styleforge.training import DivergedError, open_dataset, resume, train
from styleforge.training import run as module
from styleforge.training import run_dir as files
from styleforge.training.loop import Loop
from styleforge.training.run import clamped

from . import sessions
from .test_loop import thousands
from .tiny_runs import (
    assert_same_gradients,
    assert_same_run,
    growing_config,
    read_snapshot,
    snapshots,
    stats_without_times,
    tiny_config,
)


def config_e(folder, **changes):
    """Labels, mirrored pictures, parts of the batch, ramp-up, readers: what may go wrong on the way."""
    rich = {"c_dim": 3, "mirror": True, "batch_gpu": 4, "ema_rampup": 0.05, "betas": (0.5, 0.99)}
    return tiny_config(folder, **(rich | changes))


MAKERS = {
    "config-e": config_e,
    "config-a": lambda folder, **changes: growing_config(folder, "config-a", **changes),
    "config-d": lambda folder, **changes: growing_config(folder, "config-d", **changes),
}


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """``uninterrupted(name)``: the run directory of a whole run, made once."""
    run_dirs = {}

    def make(name):
        if name not in run_dirs:
            run_dirs[name] = train(MAKERS[name](tmp_path_factory.mktemp(name)), quiet=True).run_dir
        return run_dirs[name]

    return make


@pytest.fixture
def stop_each(monkeypatch):
    """``stop_each(which)``: a signal comes in every step for whose number ``which`` holds, once."""

    def install(which, number=signal.SIGTERM):
        step, seen = Loop._step, set()

        def note(self, *arguments, **keywords):
            step(self, *arguments, **keywords)
            steps = self.state.counters.batch_idx + 1
            if which(steps) and steps not in seen:
                seen.add(steps)
                signal.raise_signal(number)

        monkeypatch.setattr(Loop, "_step", note)

    return install


def run_to_the_end(config):
    """Goes on until training is complete: (run directory, number of sessions)."""
    result, sessions_made = sessions.run(config), 1
    while not result.complete:
        result, sessions_made = sessions.run(config), sessions_made + 1
    return result.run_dir, sessions_made


def log(run_dir):
    return (run_dir / "log.txt").read_text()


# Exact resume


@pytest.mark.parametrize("name", ["config-e", "config-d", pytest.param("config-a", marks=pytest.mark.slow)])
def test_a_run_stopped_after_every_step_is_the_uninterrupted_one(tmp_path, uninterrupted, stop_each, name):
    """Also where resolution, batch and optimizers change, and in the midst of ticks."""
    stop_each(lambda steps: True)
    run_dir, num_sessions = run_to_the_end(MAKERS[name](tmp_path))
    assert num_sessions == read_snapshot(snapshots(run_dir)[-1])[1]["info"]["counters"]["batch_idx"] > 10
    assert_same_run(run_dir, uninterrupted(name))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_stopped_by_a_signal_goes_on_with_readers_too(tmp_path, uninterrupted, stop_each, number):
    stop_each(lambda steps: steps in (4, 9), number)
    run_dir, num_sessions = run_to_the_end(config_e(tmp_path, workers=1))
    assert num_sessions == 3
    assert_same_run(run_dir, uninterrupted("config-e"))


def test_other_weights_and_numbers_in_between_do_not_matter(tmp_path, uninterrupted, stop_each):
    """Nothing outside the checkpoint takes part: not the global random state, not what else was trained before."""
    stop_each(lambda steps: steps == 6)
    config = config_e(tmp_path)
    run_dir = train(config, quiet=True).run_dir
    torch.manual_seed(99)
    train(tiny_config(tmp_path, outdir=str(tmp_path / "other"), seed=3), quiet=True)
    resume(run_dir, quiet=True)
    assert_same_run(run_dir, uninterrupted("config-e"))


def test_a_run_goes_on_beyond_its_end_as_if_it_had_been_longer(tmp_path, uninterrupted):
    """N + N steps are 2N steps; only the ticks differ, since the first end was one."""
    config = config_e(tmp_path, total_kimg=0.048, kimg_per_tick=0.024)
    run_dir = train(config, quiet=True).run_dir
    assert resume(run_dir, changes={"total_kimg": 0.096}, quiet=True).complete
    assert files.read_options(run_dir).total_kimg == 0.096
    tensors, _ = read_snapshot(snapshots(run_dir)[-1])
    expected, _ = read_snapshot(snapshots(uninterrupted("config-e"))[-1])
    assert all(torch.equal(tensors[name], expected[name]) for name in expected if ".stats." not in name)


def test_resuming_a_complete_run_changes_nothing(tmp_path):
    config = tiny_config(tmp_path)
    run_dir = train(config, quiet=True).run_dir
    before = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.name != "log.txt"}
    result = resume(run_dir, quiet=True)
    assert (result.complete, result.cur_nimg) == (True, 96)
    after = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.name != "log.txt"}
    assert {name: content for name, content in after.items() if "tfevents" not in name} == {
        name: content for name, content in before.items() if "tfevents" not in name
    }


def test_a_run_without_a_checkpoint_starts_from_its_beginning(tmp_path, uninterrupted):
    config = config_e(tmp_path)
    run_dir = files.create(config, 1)
    (run_dir / "stats.jsonl").write_text('{"cur_nimg": 8}\n{"cur')
    resume(run_dir, quiet=True)
    assert_same_run(run_dir, uninterrupted("config-e"))
    assert "no checkpoint yet" in log(run_dir)


def test_the_settings_are_those_of_the_run(tmp_path, stop_each):
    stop_each(lambda steps: steps == 3)
    config = tiny_config(tmp_path, gamma=3.5, seed=7)
    run_dir = train(config, quiet=True).run_dir
    assert resume(str(run_dir), quiet=True).run_dir == run_dir
    assert files.read_options(run_dir) == config
    assert len(list((tmp_path / "runs").iterdir())) == 1


def trains_elsewhere(run_dir):
    with files.locked(run_dir):
        (run_dir / "locked").touch()
        time.sleep(60)


def test_two_processes_cannot_train_in_one_directory(tmp_path):
    run_dir = train(tiny_config(tmp_path), quiet=True).run_dir
    process, _ = start(trains_elsewhere, run_dir)
    while not (run_dir / "locked").exists():
        time.sleep(0.05)
    with pytest.raises(OSError, match="another process is training"):
        resume(run_dir, quiet=True)
    process.kill()
    process.join()
    assert resume(run_dir, quiet=True).complete


def test_another_folder_cannot_be_resumed(tmp_path):
    with pytest.raises(OSError, match="expected a run directory"):
        resume(tmp_path, quiet=True)


def test_changed_data_are_noticed(tmp_path, refuses):
    run_dir = train(tiny_config(tmp_path, total_kimg=0.008), quiet=True).run_dir
    other = tiny_config(tmp_path, img_channels=1)
    with refuses("1 channels", "3"):
        resume(run_dir, changes={"data": other.data, "total_kimg": 1}, quiet=True)


def test_data_may_move(tmp_path):
    config = tiny_config(tmp_path, total_kimg=0.008)
    run_dir = train(config, quiet=True).run_dir
    moved = shutil.move(config.data, tmp_path / "moved.zip")
    with pytest.raises(FileNotFoundError, match="--data"):
        resume(run_dir, quiet=True)
    resume(run_dir, changes={"data": str(moved), "total_kimg": 0.016}, quiet=True)
    assert files.read_options(run_dir).data == str(moved)
    assert "other pictures" not in log(run_dir)


def test_other_pictures_than_before_are_said(tmp_path):
    """Their number and names decide the order, so that the run cannot go on exactly."""
    config = tiny_config(tmp_path, total_kimg=0.008)
    run_dir = train(config, quiet=True).run_dir
    with zipfile.ZipFile(config.data, "a") as archive:
        archive.writestr("new.png", archive.read("00.png"))
    assert resume(run_dir, changes={"total_kimg": 0.016}, quiet=True).complete
    assert "holds other pictures" in log(run_dir)


def test_statistics_beyond_the_checkpoint_are_taken_back(tmp_path, uninterrupted, monkeypatch):
    """A run that died between the line of a tick and its checkpoint."""
    snapshot, calls = Loop._snapshot, []

    def die(self, *arguments, **keywords):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("power failure")
        snapshot(self, *arguments, **keywords)

    monkeypatch.setattr(Loop, "_snapshot", die)
    with pytest.raises(RuntimeError, match="power failure"):
        train(config_e(tmp_path), quiet=True)
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert [line["cur_nimg"] for line in stats_without_times(run_dir)] == [8, 48, 88]
    resume(run_dir, quiet=True)
    assert_same_run(run_dir, uninterrupted("config-e"))


# Damage


def test_a_damaged_checkpoint_is_passed_over_with_a_message(tmp_path):
    config = thousands(tmp_path)
    whole = train(config, quiet=True).run_dir
    run_dir = train(replace(config, total_kimg=3.5, desc="damaged"), quiet=True).run_dir
    files.write_options(replace(config, desc="damaged"), run_dir)
    *_, good, damaged = snapshots(run_dir)
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    resume(run_dir, quiet=True)
    assert f"passed over: {damaged}" in log(run_dir)
    assert f"goes on at 2.500 kimg from {good}" in log(run_dir)
    assert_same_run(run_dir, whole)


def test_a_good_checkpoint_is_not_pruned_for_a_damaged_one(tmp_path, stop_each):
    """Stopped between the good one and the damaged one, with room for one alone."""
    config = thousands(tmp_path, keep=2, kimg_per_tick=2, total_kimg=6.5)  # checkpoints at 0.5, 2.5, 4.5 and 6.5 kimg
    run_dir = train(config, quiet=True).run_dir
    damaged = snapshots(run_dir)[-1]
    damaged.write_bytes(b"damaged")
    files.write_options(replace(config, keep=1), run_dir)
    stop_each(lambda steps: steps == 11)
    result = resume(run_dir, quiet=True)
    assert result.cur_nimg == 5500
    assert [path.name for path in snapshots(run_dir)] == [f"network-snapshot-000005{SUFFIX}"]
    assert resume(run_dir, quiet=True).complete


# Killed


@pytest.mark.parametrize("name", ["config-e", pytest.param("config-d", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_is_the_uninterrupted_one(tmp_path, uninterrupted, name, kills):
    config, moments = MAKERS[name](tmp_path), random.Random(kills)
    if kills > 3:  # room for so many
        config = replace(config, total_kimg=10 * config.total_kimg)
        expected = train(replace(config, outdir=str(tmp_path / "expected")), quiet=True).run_dir
    else:
        expected = uninterrupted(name)
    killed = 0
    while killed < kills:
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process, _ = start(sessions.run_and_say_when, sender, config)
        sender.close()
        receiver.poll(60)
        process.join(moments.uniform(0, 0.2))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            break  # it was complete before the signal came
    assert killed > 0
    run_dir, _ = run_to_the_end(config)
    assert_same_run(run_dir, expected)
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.parametrize("moment", ["writing", "before moving", "after moving"])
def test_a_run_killed_while_it_saves_has_a_good_checkpoint(tmp_path, uninterrupted, moment):
    config = config_e(tmp_path)
    process, _ = start(sessions.die_while_saving, config, moment, 3)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (run_dir,) = (tmp_path / "runs").iterdir()
    left = [path for path in run_dir.iterdir() if ".part" in path.suffixes]
    assert len(left) == (0 if moment == "after moving" else 1)
    assert checkpoint.load(run_dir).info["counters"]["cur_nimg"] == (88 if moment == "after moving" else 48)
    resume(run_dir, quiet=True)
    assert_same_run(run_dir, uninterrupted("config-e"))
    assert not [path for path in run_dir.iterdir() if ".part" in path.suffixes]


# Several processes


def one_run(folder):
    (run_dir,) = Path(folder).iterdir()
    return run_dir


def test_processes_go_on_together_exactly(tmp_path):
    """SIGTERM to one of them, in the midst of a tick, stops both after saving."""
    config = tiny_config(tmp_path)
    whole, halves = replace(config, outdir=str(tmp_path / "whole")), replace(config, outdir=str(tmp_path / "halves"))
    run_ranks(sessions.run, 2, whole)
    stopped = run_ranks(sessions.stop_rank, 2, 1, 4, halves)
    assert [(result.complete, result.cur_nimg) for result in stopped] == [(False, 32)] * 2
    assert [result.signum for result in stopped] == [None, signal.SIGTERM]
    assert "stopped by another process" in log(one_run(halves.outdir))
    assert all(result.complete for result in run_ranks(sessions.run, 2, halves))
    assert_same_run(one_run(halves.outdir), one_run(whole.outdir), stats_tolerance=1e-6)


def test_a_run_may_go_on_with_another_number_of_processes(tmp_path, stop_each):
    """To the accuracy of sums: the pictures, the draws and the statistics stay those of one process."""
    config = tiny_config(tmp_path, batch=16, total_kimg=0.064, eps=1e-2, gamma=1)
    one = train(replace(config, outdir=str(tmp_path / "one")), quiet=True).run_dir
    two = replace(config, outdir=str(tmp_path / "two"))
    stop_each(lambda steps: steps == 2)
    train(two, quiet=True)
    run_ranks(sessions.run, 2, two)
    expected, got = (checkpoint.load(run_dir).G_ema.state_dict() for run_dir in (one, one_run(two.outdir)))
    assert_same_gradients(list(got.values()), list(expected.values()), 1e-4)
    for line, other in zip(stats_without_times(one), stats_without_times(one_run(two.outdir)), strict=True):
        assert line["Loss/G/loss"] == pytest.approx(other["Loss/G/loss"], rel=1e-3)


def test_a_killed_rank_ends_the_run_with_a_message_and_a_good_checkpoint(tmp_path):
    config = tiny_config(tmp_path)
    lost, nothing = run_ranks(sessions.kill_rank, 2, 1, 8, config, timeout=60)
    assert nothing is None
    assert isinstance(lost, dist.LostRankError)
    assert "--resume" in str(lost)
    assert checkpoint.load(one_run(config.outdir)).info["counters"]["cur_nimg"] == 48
    assert all(result.complete for result in run_ranks(sessions.run, 2, config))


def test_every_rank_names_the_run_directory(tmp_path):
    config = tiny_config(tmp_path)
    results = run_ranks(sessions.run_out_of_memory, 2, config)
    for result in results:
        assert isinstance(result, MemoryError)
        assert f"--resume {one_run(config.outdir)} " in str(result)


def torchrun(config, function, *arguments):
    """The command of torchrun on a program that runs one of the sessions; sys.exit with a message on an error."""
    program = Path(config.outdir).parent / "program.py"
    program.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "import torch\n"
        "torch.set_num_threads(1)\n"
        "from styleforge.training import TrainConfig\n"
        "from training import sessions\n"
        "import json\n"
        f"config = TrainConfig.from_dict(json.loads({json.dumps(config.to_dict())!r}))\n"
        "try:\n"
        f"    sessions.{function}({''.join(f'{argument}, ' for argument in arguments)}config)\n"
        "except OSError as error:\n"
        "    sys.exit(str(error))\n"
    )
    port = str(free_port())
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    return [*command, str(program)]


@pytest.mark.slow
def test_torchrun_names_the_killed_rank_and_fails(tmp_path):
    config = tiny_config(tmp_path)
    command = torchrun(config, "kill_rank", 1, 8)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "rank 0 of 2: another process died" in done.stderr
    assert "Signal 9 (SIGKILL)" in done.stderr
    assert "local_rank: 1" in done.stderr
    assert checkpoint.load(one_run(config.outdir)).info["counters"]["cur_nimg"] == 48


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun_saves_and_the_run_goes_on_exactly(tmp_path, number):
    config = tiny_config(tmp_path, total_kimg=2, kimg_per_tick=0.2)
    whole = replace(config, outdir=str(tmp_path / "whole"))
    run_ranks(sessions.run, 2, whole, timeout=200)
    process = subprocess.Popen(torchrun(config, "run"), stderr=subprocess.PIPE, text=True)
    stats = Path(config.outdir)
    while not any(path.stat().st_size for path in stats.glob("*/stats.jsonl")):
        assert process.poll() is None, process.stderr.read()
    os.kill(process.pid, number)
    process.communicate(timeout=60)
    run_dir = one_run(config.outdir)
    assert "after saving" in log(run_dir)
    nimg = checkpoint.load(run_dir).info["counters"]["cur_nimg"]
    assert nimg < 2000
    assert f"at {nimg / 1000:.3f} kimg" not in log(run_dir)
    run_ranks(sessions.run, 2, config, timeout=200)
    assert f"goes on at {nimg / 1000:.3f} kimg" in log(run_dir)
    assert_same_run(run_dir, one_run(whole.outdir), stats_tolerance=1e-6)


# Transfer learning


def test_transfer_lists_what_became_of_the_weights(tmp_path):
    source = train(tiny_config(tmp_path, c_dim=3), quiet=True).run_dir
    config = tiny_config(tmp_path, size=32, total_kimg=0.008, outdir=str(tmp_path / "transfer"))
    run_dir = train(config, init_from=checkpoint.load(source), quiet=True).run_dir
    lines = log(run_dir).splitlines()
    assert [line.split(":")[0] for line in lines[1:4]] == ["G", "G_ema", "D"]
    for line in lines[1:4]:
        assert " tensors copied" in line
        assert "fresh (" in line
        assert "left out (" in line
    assert "mapping.embed.weight" in lines[1]
    assert checkpoint.load(run_dir).info["counters"]["cur_nimg"] == 8  # a new run


def test_transfer_starts_from_the_weights_of_its_source(tmp_path):
    source = checkpoint.load(train(tiny_config(tmp_path), quiet=True).run_dir)
    config = tiny_config(tmp_path, total_kimg=0.008, g_lr=1e-12, d_lr=1e-12, seed=4)
    started = checkpoint.load(train(config, init_from=source, quiet=True).run_dir)
    for name in ("G", "D", "G_ema"):
        expected = getattr(source, name).state_dict()
        for key, tensor in getattr(started, name).state_dict().items():
            if not key.endswith("w_avg"):
                torch.testing.assert_close(tensor, expected[key], rtol=1e-4, atol=1e-4)


def test_transfer_takes_a_generator_alone(tmp_path):
    source = checkpoint.load(train(tiny_config(tmp_path, total_kimg=0.008), quiet=True).run_dir)
    config = tiny_config(tmp_path, total_kimg=0.008)
    run_dir = train(config, init_from=replace(source, G=None, D=None), quiet=True).run_dir
    assert "D: the checkpoint has none, starts from random weights" in log(run_dir)


# Data


def test_the_dataset_must_fit_the_networks(tmp_path, refuses):
    config = tiny_config(tmp_path)
    assert open_dataset(config).resolution == (16, 16)
    with refuses("1 channels", "expected 3"):
        open_dataset(replace(config, data=tiny_config(tmp_path, img_channels=1).data))
    with refuses("labels of length 3"):
        open_dataset(replace(config, cond=True))
    with refuses("32×32"):
        open_dataset(replace(config, data=tiny_config(tmp_path, size=32).data))


def test_the_dataset_follows_the_config(tmp_path):
    dataset = open_dataset(tiny_config(tmp_path, c_dim=3, mirror=True, subset=5, cache=True))
    assert (len(dataset), dataset.c_dim) == (10, 3)


def test_networks_too_wide_for_the_memory_are_said(tmp_path):
    config = tiny_config(tmp_path)
    wide = replace(config, generator=replace(config.generator, z_dim=1 << 40, w_dim=1 << 10))
    with pytest.raises(MemoryError, match="--cbase or --cmax") as info:
        train(wide, quiet=True)
    assert "\n" not in str(info.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("batch", "batch_gpu", "said"), [(8, 4, False), (8, 2, True), (6, 3, False), (12, 6, True)])
def test_parts_that_change_the_groups_of_the_batch_are_said(tmp_path, batch, batch_gpu, said):
    config = tiny_config(tmp_path, total_kimg=0.006, batch=batch, batch_gpu=batch_gpu)
    run_dir = train(config, quiet=True).run_dir
    assert (f"{batch_gpu} images at a time form groups of" in log(run_dir)) == said


def test_phases_are_timed_on_the_gpu_that_was_asked_for(tmp_path, monkeypatch):
    current = []
    monkeypatch.setattr(dist, "pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr("styleforge.training.run.check_batches", lambda config: 1 / 0)  # no further without a GPU
    with pytest.raises(ZeroDivisionError):
        train(tiny_config(tmp_path, device="cuda:1"), quiet=True)
    assert current == [torch.device("cuda:1")]


def test_half_precision_limits_the_activations(tmp_path):
    config = tiny_config(tmp_path)
    assert clamped(config) is config
    half = clamped(replace(config, precision="fp16"))
    assert (half.generator.conv_clamp, half.discriminator.conv_clamp) == (256, 256)
    own = replace(half, generator=replace(half.generator, conv_clamp=100.0))
    assert clamped(own) is own


def test_an_error_is_the_same_after_a_resume(tmp_path, monkeypatch):
    """Divergence comes again, since the run is the same; the advice is to start anew from the checkpoint."""
    from styleforge.training.phases import Losses

    loss = Losses.generator_main
    config = tiny_config(tmp_path)

    def diverge(self, batch, report):
        return loss(self, batch, report) * (float("nan") if self.G.w_avg.abs().max() > 1e-3 else 1)

    monkeypatch.setattr(Losses, "generator_main", diverge)
    messages = []
    for _ in range(2):
        with pytest.raises(DivergedError) as info:
            sessions.run(config)
        messages.append(str(info.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("computes", [True, False])
def test_bf16_on_a_processor_that_does_not_compute_it_is_said(tmp_path, monkeypatch, computes):
    monkeypatch.setattr(module, "computes_bf16", lambda device: computes)
    run_dir = train(tiny_config(tmp_path, precision="bf16", total_kimg=0.016), quiet=True).run_dir
    log = (run_dir / "log.txt").read_text(encoding="utf-8")
    assert ("not known to compute bf16" in log) != computes
