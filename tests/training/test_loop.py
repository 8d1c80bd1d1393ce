import errno
import itertools
import json
import math
import multiprocessing
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import run_ranks

from styleforge import checkpoint
from styleforge.training import DivergedError, GrowingConfig, resume, train
from styleforge.training import loop as module
from styleforge.training.loop import Loop
from styleforge.training.phases import Losses
from styleforge.training.state import TrainState

from .tiny_runs import (
    assert_same_gradients,
    assert_same_run,
    growing_config,
    snapshots,
    stats_without_times,
    step_gradients,
    tiny_config,
)


def stats(run_dir):
    return [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]


def log(run_dir):
    return (run_dir / "log.txt").read_text().splitlines()


# Gradients: parts of a batch and shares of processes


def still(folder, preset, **changes):
    """All phases in every step, of 16 images; learning rates so small that the weights stand still."""
    intervals = {"r1_interval": 1} if preset not in ("config-a", "config-b") else {}
    config = tiny_config(
        folder, preset, **({"batch": 16, "pl_interval": 1, "g_lr": 1e-9, "d_lr": 1e-9} | intervals | changes)
    )
    if config.growing is not None:  # in the midst of a fade
        growing = GrowingConfig(train_kimg=0, fade_kimg=0.1, lr_by_resolution={}, batch_factor_by_resolution={})
        config = replace(config, growing=growing)
    return config


CASES = [("config-e", {}), ("config-f", {"c_dim": 3}), ("config-a", {"c_dim": 3}), ("config-d", {})]


@pytest.mark.parametrize(("preset", "changes"), CASES, ids=str)
def test_parts_of_a_batch_accumulate_to_its_gradients(tmp_path, preset, changes):
    """R1 and the minibatch standard deviation included; the second step has a path length target."""
    config = still(tmp_path, preset, **changes)
    whole = step_gradients(config, steps=2)
    assert len(whole) == 2 * len(Losses.__new__(Losses) and module.make_phases(config, Losses.__new__(Losses)))
    for batch_gpu in (4, 8):
        parts = step_gradients(replace(config, batch_gpu=batch_gpu), steps=2)
        assert len(parts) == len(whole)
        for phase, expected in zip(parts, whole, strict=True):
            assert_same_gradients(phase, expected)


@pytest.mark.parametrize(("preset", "changes"), CASES[1:3], ids=str)
def test_two_processes_with_half_the_batch_give_the_gradients_of_one(tmp_path, preset, changes):
    config = still(tmp_path, preset, **changes)
    whole = step_gradients(config, steps=2)
    halves = run_ranks(step_gradients, 2, config, 2)
    for rank in halves:
        for phase, expected in zip(rank, whole, strict=True):
            assert_same_gradients(phase, expected)


def test_two_processes_with_half_the_batch_give_the_weights_of_one(tmp_path):
    """Adam divides rounding errors by themselves; a larger epsilon leaves only what counts."""
    config = tiny_config(tmp_path, batch=16, pl_interval=1, r1_interval=1, eps=1e-2, total_kimg=0.032, gamma=1)
    one = train(replace(config, desc="one"), quiet=True)
    ranks = run_ranks(train_quietly, 2, replace(config, desc="two"))
    (two,) = (config_dir for config_dir in (tmp_path / "runs").iterdir() if config_dir.name.endswith("two"))
    assert all(result.complete for result in ranks)
    assert "-gpus2-" in two.name
    states = [checkpoint.load(path) for path in (one.run_dir, two)]
    for name in ("G", "D", "G_ema"):
        expected, got = (list(getattr(state, name).state_dict().values()) for state in states)
        assert_same_gradients(got, expected)
    torch.testing.assert_close(states[1].training["pl_mean"], states[0].training["pl_mean"], rtol=1e-5, atol=0)
    for one_line, other in zip(*map(stats_without_times, (one.run_dir, two)), strict=True):
        assert one_line.keys() == other.keys()
        for key, value in one_line.items():
            assert other[key] == (pytest.approx(value, rel=1e-3, abs=1e-5) if isinstance(value, dict) else value)


def train_quietly(config):
    return train(config, quiet=True)


@pytest.mark.parametrize("changes", [{"batch_gpu": 3}, {"data": "nosuch.zip"}, {"cond": True}])
def test_what_cannot_be_trained_leaves_no_run_directory(tmp_path, changes):
    with pytest.raises((ValueError, OSError), match=r"--batch-gpu|nosuch\.zip|labels"):
        train(replace(tiny_config(tmp_path), **changes), quiet=True)
    assert not (tmp_path / "runs").exists()


# The course of training


def test_phases_run_at_their_intervals(tmp_path):
    """Steps 0 | 1 … 5 | 6 … 10 | 11 make the ticks; path lengths every 4th step, R1 every 3rd."""
    run_dir = train(tiny_config(tmp_path), quiet=True).run_dir
    nums = [
        [line.get(f"Timing/{phase}", {"num": 0})["num"] for phase in ("Gmain", "Greg", "Dmain", "Dreg")]
        for line in stats(run_dir)
    ]
    assert nums == [[1, 1, 1, 1], [5, 1, 5, 1], [5, 1, 5, 2], [1, 0, 1, 0]]
    images = [line["Loss/G/loss"]["num"] for line in stats(run_dir)]
    assert images == [8, 40, 40, 8]
    assert stats(run_dir)[0]["Loss/pl_penalty"]["num"] == 4  # half the batch


def test_lazy_regularisers_make_up_for_the_steps_they_skip(tmp_path):
    config = tiny_config(tmp_path, g_lr=1e-9, d_lr=1e-9, pl_interval=1, r1_interval=1)
    one = step_gradients(config)
    ten = step_gradients(replace(config, pl_interval=10, r1_interval=10))
    for phase, factor in enumerate((1, 10, 1, 10)):
        expected = [None if g is None else g * factor for g in one[phase]]
        assert_same_gradients(ten[phase], expected)


def test_optimizers_start_afresh_when_fades_begin_and_end(tmp_path, monkeypatch):
    resets, rates, reset = [], {}, TrainState.reset_optimizers
    set_rates = TrainState.set_learning_rates

    def note_reset(self):
        resets.append(self.counters.cur_nimg)
        reset(self)

    def note_rates(self, g_lr, d_lr):
        set_rates(self, g_lr, d_lr)
        group = self.optimizers["D"].param_groups[0]
        rates[self.counters.cur_nimg] = group["lr"] / self.lazy_correction("D")

    monkeypatch.setattr(TrainState, "reset_optimizers", note_reset)
    monkeypatch.setattr(TrainState, "set_learning_rates", note_rates)
    train(growing_config(tmp_path), quiet=True)
    assert resets == [0, 48, 64, 104, 128]  # 0: made
    assert list(rates) == [0, 16, 32, *range(48, 104, 8), *range(104, 176, 4)]
    for nimg, rate in rates.items():
        assert rate == pytest.approx(0.003 if nimg >= 104 else 0.001)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_image_is_shown_once_per_epoch(tmp_path, monkeypatch, workers):
    """Through changes of the batch and of the loader."""
    shown, step = [], Loop._step

    def note(self, real, c, *, batch, lod):
        shown.extend(c.argmax(1).tolist())
        assert len(real) == batch
        step(self, real, c, batch=batch, lod=lod)

    monkeypatch.setattr(Loop, "_step", note)
    config = growing_config(tmp_path, "config-b", c_dim=3, workers=workers, total_kimg=0.112)
    train(config, quiet=True)
    from styleforge.data import ImageDataset, InfiniteSampler

    dataset = ImageDataset(config.data, use_labels=True)
    order = iter(InfiniteSampler(len(dataset), seed=config.seed))
    assert shown == [int(dataset.label(next(order)).argmax()) for _ in shown]
    assert len(shown) == 112


@pytest.mark.parametrize("lr", [0.05, 2.0])
def test_rho_of_pin_stays_between_0_and_1(tmp_path, monkeypatch, lr):
    config = tiny_config(tmp_path, "config-a", g_lr=lr)
    config = replace(
        config,
        generator=replace(config.generator, style_block="pixel_instance"),
        growing=GrowingConfig(batch_factor_by_resolution={}),
    )
    seen, update = [], TrainState.update_ema

    def note(self, decay):
        update(self, decay)
        for network in (self.G, self.G_ema):
            seen.extend(p.detach().clone() for name, p in network.named_parameters() if name.endswith(".rho"))

    monkeypatch.setattr(TrainState, "update_ema", note)
    train(config, quiet=True)
    values = torch.cat(seen)
    assert 0 <= values.min() < values.max() <= 1
    assert len(seen) == 12 * 2 * 6


# What a person sees


KEYS = {
    *(f"Loss/{name}" for name in ("scores/real", "scores/fake", "signs/real", "signs/fake", "G/loss", "D/loss")),
    *(f"Loss/{name}" for name in ("r1_penalty", "D/reg", "pl_penalty", "G/reg")),
    *(f"Timing/{name}" for name in ("total_sec", "sec_per_tick", "sec_per_kimg", "maintenance_sec")),
    *(f"Timing/{name}" for name in ("Gmain", "Greg", "Dmain", "Dreg")),
    *("Progress/tick", "Progress/kimg", "Resources/cpu_mem_gb", "Resources/peak_gpu_mem_gb"),
}


def test_statistics_have_the_field_s_keys(tmp_path):
    first, *rest = stats(train(tiny_config(tmp_path), quiet=True).run_dir)
    assert KEYS | {"Loss/pl_lengths", "Progress/lod", "cur_nimg", "timestamp"} == set(first)
    for line in [first, *rest]:
        for key, value in line.items():
            if "/" in key:
                assert value.keys() == {"num", "mean", "std"}
                assert all(math.isfinite(number) for number in value.values())
    assert [line["Progress/tick"]["mean"] for line in [first, *rest]] == [1, 2, 3, 4]
    assert [line["Progress/kimg"]["mean"] for line in [first, *rest]] == [0.008, 0.048, 0.088, 0.096]
    assert [line["cur_nimg"] for line in [first, *rest]] == [8, 48, 88, 96]


def test_time_for_snapshots_is_reported_apart(tmp_path, monkeypatch):
    now, snapshot = [0.0], Loop._snapshot
    step = Loop._step
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def slow_step(self, *arguments, **keywords):
        step(self, *arguments, **keywords)
        now[0] += 1

    def slow_snapshot(self, *arguments, **keywords):
        snapshot(self, *arguments, **keywords)
        now[0] += 100

    monkeypatch.setattr(Loop, "_step", slow_step)
    monkeypatch.setattr(Loop, "_snapshot", slow_snapshot)
    lines = stats(train(tiny_config(tmp_path, snapshot_ticks=2), quiet=True).run_dir)  # after ticks 0, 2 and the last
    assert [line["Timing/maintenance_sec"]["mean"] for line in lines] == [0, 100, 0, 100]
    assert [line["Timing/sec_per_tick"]["mean"] for line in lines] == [1, 5, 5, 1]
    assert [line["Timing/sec_per_kimg"]["mean"] for line in lines] == [125] * 4
    assert [line["Timing/total_sec"]["mean"] for line in lines] == [1, 106, 111, 212]


def test_the_status_line_is_the_field_s(tmp_path, capsys):
    run_dir = train(tiny_config(tmp_path)).run_dir
    lines = capsys.readouterr().out.splitlines()
    assert lines == log(run_dir)
    assert lines[0] == f"run directory {run_dir}"
    ticks = [line for line in lines if line.startswith("tick ")]
    pattern = (
        r"tick \d+ +kimg [\d.]+ +time \d+s +left \d+s +sec/tick [\d.]+ +sec/kimg [\d.]+ +maintenance [\d.]+ +"
        r"cpumem [\d.]+ +gpumem [\d.]+ +G [\d.]+ +D [\d.]+ *"
    )
    assert len(ticks) == 4
    assert all(re.fullmatch(pattern, line) for line in ticks)
    assert re.fullmatch(r"done: 0\.096 kimg in \d+s", lines[-1])


def test_pictures_and_checkpoints_have_the_field_s_names(tmp_path):
    run_dir = train(tiny_config(tmp_path), quiet=True).run_dir
    assert {path.name for path in run_dir.iterdir() if "tfevents" not in path.name} == {
        ".lock",
        "training_options.json",
        "log.txt",
        "stats.jsonl",
        "reals.png",
        "fakes_init.png",
        "fakes000000.png",
        "network-snapshot-000000.safetensors",
    }


def thousands(folder, **changes):
    """5 kimg in 10 steps of the smallest networks, a checkpoint for every thousand."""
    settings = {"size": 8, "batch": 500, "total_kimg": 5, "kimg_per_tick": 1, "pl_weight": 0}
    return tiny_config(folder, **(settings | changes))


@pytest.mark.parametrize("keep", [0, 2])
def test_the_newest_checkpoints_are_kept(tmp_path, keep):
    calls = []
    result = train(thousands(tmp_path, keep=keep), lambda G_ema, nimg: calls.append((G_ema, nimg)), quiet=True)
    kimgs = [int(path.stem[-6:]) for path in snapshots(result.run_dir)]
    assert kimgs == ([0, 1, 2, 3, 4, 5] if keep == 0 else [4, 5])
    assert [nimg for _, nimg in calls] == [500, 1500, 2500, 3500, 4500, 5000]
    assert (result.complete, result.cur_nimg, result.signum) == (True, 5000, None)
    last = checkpoint.load_generator(result.run_dir)
    for mine, theirs in zip(last.parameters(), calls[-1][0].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert checkpoint.load(result.run_dir).info["kimg"] == 5


# Ways out


def stop_after(monkeypatch, steps, number=signal.SIGTERM):
    """Sends this process a signal in its n-th step."""
    step = Loop._step

    def note(self, *arguments, **keywords):
        step(self, *arguments, **keywords)
        if self.state.counters.batch_idx + 1 == steps:
            signal.raise_signal(number)

    monkeypatch.setattr(Loop, "_step", note)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_leaves_without_measuring(tmp_path, monkeypatch, number):
    stop_after(monkeypatch, 3, number)
    handler, calls = signal.getsignal(number), []
    result = train(tiny_config(tmp_path), lambda G_ema, nimg: calls.append(nimg), quiet=True)
    assert (result.complete, result.signum, result.cur_nimg) == (False, number, 24)
    assert calls == [8]  # a metric may take longer than whoever sent the signal waits
    assert checkpoint.load(result.run_dir).info["counters"]["cur_nimg"] == 24
    name = signal.Signals(number).name
    assert log(result.run_dir)[-1] == (
        f"stopped by {name} after saving; to go on: styleforge train --resume {result.run_dir}"
    )
    assert signal.getsignal(number) == handler


def test_the_time_limit_saves_and_leaves(tmp_path):
    result = train(tiny_config(tmp_path), minutes=1e-9, quiet=True)
    assert (result.complete, result.signum, result.cur_nimg) == (False, None, 8)
    assert log(result.run_dir)[-1].startswith("stopped by the time limit after saving")


def broken(monkeypatch, name, after, value):
    """Replaces what a loss gives after some steps."""
    loss = getattr(Losses, name)
    calls = []

    def broken_loss(self, *arguments):
        calls.append(1)
        return loss(self, *arguments) * (value if len(calls) > after else 1)

    monkeypatch.setattr(Losses, name, broken_loss)


@pytest.mark.parametrize(
    ("name", "culprit"), [("generator_main", r"G\.|Loss/"), ("discriminator_main", r"D\.|Loss/"), ("_r1", None)]
)
def test_a_loss_that_is_no_number_ends_the_run_with_the_last_checkpoint_intact(tmp_path, monkeypatch, name, culprit):
    config = tiny_config(tmp_path)
    if culprit is None:
        config, culprit = replace(config, gamma=1e30), r"the gradient of D\.|D\.|Loss/"
    else:
        broken(monkeypatch, name, 8, math.nan)  # in the third tick; the second has saved
    with pytest.raises(DivergedError, match=rf"training diverged: ({culprit}).* was not finite") as info:
        train(config, quiet=True)
    for part in ("kimg", "is intact", "--init-from", "--gamma", "--glr", "--precision"):
        assert part in str(info.value)
    assert "\n" not in str(info.value)
    (run_dir,) = (tmp_path / "runs").iterdir()
    if config.gamma < 1e30:
        assert checkpoint.load(run_dir).info["counters"]["cur_nimg"] == 48
    else:
        assert not snapshots(run_dir)


def test_a_signal_does_not_save_broken_weights(tmp_path, monkeypatch):
    broken(monkeypatch, "generator_main", 6, math.nan)
    stop_after(monkeypatch, 8)
    with pytest.raises(DivergedError, match="G\\."):
        train(tiny_config(tmp_path), quiet=True)
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert checkpoint.load(run_dir).info["counters"]["cur_nimg"] == 48


def test_a_full_disk_is_said_with_what_to_do_and_the_last_checkpoint_is_intact(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    calls = []

    def full(tensors, path, metadata=None):
        calls.append(1)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path, metadata=metadata)

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="could not be saved") as info:
        train(tiny_config(tmp_path), quiet=True)
    for part in ("No space left", "MB are free", "--keep", "--resume"):
        assert part in str(info.value)
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert checkpoint.load(run_dir).info["counters"]["cur_nimg"] == 8
    assert [path.name for path in run_dir.glob(".*")] == [".lock"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("name", ["stats.jsonl", "log.txt"])
def test_a_full_disk_is_said_by_the_logs_too(tmp_path, monkeypatch, name):
    """Each tick's line is written long before the next checkpoint."""
    run, path_open = Loop.run, Path.open

    def fill(self):
        with path_open(Path("/dev/full"), "a") as full:  # the open file leads there from now on
            os.dup2(full.fileno(), (self.log.file if name == "stats.jsonl" else self.console.log).fileno())
        return run(self)

    monkeypatch.setattr(Loop, "run", fill)
    with pytest.raises(OSError, match="could not be saved") as info:
        train(tiny_config(tmp_path), quiet=True)
    for part in ("No space left", "MB are free", "--keep", "--resume"):
        assert part in str(info.value)
    assert "\n" not in str(info.value)


def run_out_of_memory(self, *_):
    return torch.empty(1 << 50)  # a million gigabytes: refused by the allocator itself


@pytest.mark.parametrize(
    ("batch_gpu", "advice"), [(None, "--batch-gpu 4"), (4, "--batch-gpu 2"), (1, "start with smaller")]
)
def test_memory_that_runs_out_is_said_with_what_to_do(tmp_path, monkeypatch, batch_gpu, advice):
    monkeypatch.setattr(Losses, "discriminator_r1", run_out_of_memory)
    with pytest.raises(MemoryError, match=f"with {batch_gpu or 8} images at a time") as info:
        train(tiny_config(tmp_path, batch_gpu=batch_gpu), quiet=True)
    assert advice in str(info.value)
    assert "--batch-gpu 1," not in str(info.value) or batch_gpu == 2
    assert "--cbase" in str(info.value)
    assert "\n" not in str(info.value)


def test_memory_that_runs_out_in_python_is_said_with_what_to_do(tmp_path, monkeypatch):
    def fail(self, *_):
        raise MemoryError

    monkeypatch.setattr(Losses, "discriminator_r1", fail)
    with pytest.raises(MemoryError, match="--batch-gpu 4"):
        train(tiny_config(tmp_path), quiet=True)


def test_the_advised_part_divides_the_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(Losses, "discriminator_r1", run_out_of_memory)
    with pytest.raises(MemoryError, match="--batch-gpu 5,"):
        train(tiny_config(tmp_path, batch=15), quiet=True)


def test_other_errors_are_not_taken_for_want_of_memory(tmp_path, monkeypatch):
    def fail(self, *_):
        raise RuntimeError("something else")

    monkeypatch.setattr(Losses, "discriminator_r1", fail)
    with pytest.raises(RuntimeError, match="something else"):
        train(tiny_config(tmp_path), quiet=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_loses_nothing(tmp_path, monkeypatch, workers):
    config = tiny_config(tmp_path, workers=workers)
    whole = train(config, quiet=True).run_dir
    with monkeypatch.context() as patch:
        load = Loop._load

        def break_off(self, batch):
            yield from itertools.islice(load(self, batch), 8)
            raise OSError("00.png: the server is gone")

        patch.setattr(Loop, "_load", break_off)
        with pytest.raises(OSError, match="the server is gone"):
            train(replace(config, desc="broken"), quiet=True)
    run_dir = whole.with_name(whole.name.replace("00000", "00001") + "-broken")
    assert checkpoint.load(run_dir).info["counters"]["cur_nimg"] == 64
    assert_same_run(resume(run_dir, quiet=True).run_dir, whole)


def test_a_dead_reader_is_said_with_what_to_do(tmp_path, monkeypatch):
    step = Loop._step

    def kill_readers(self, *arguments, **keywords):
        step(self, *arguments, **keywords)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    monkeypatch.setattr(Loop, "_step", kill_readers)
    with pytest.raises(OSError, match=r"reads pictures died .*--workers 0"):
        train(tiny_config(tmp_path, workers=1, total_kimg=10), quiet=True)


def test_a_callback_sees_every_checkpoint_and_its_numbers_are_kept(tmp_path):
    seen = []

    def on_snapshot(G_ema, cur_nimg):
        seen.append((cur_nimg, G_ema.training))
        return [{"metric": "size", "results": {"size": cur_nimg / 2}, "seed": 7}]

    result = train(tiny_config(tmp_path), on_snapshot, quiet=True)
    assert seen[-1] == (result.cur_nimg, False) and len(seen) == len(set(seen)) > 1
    lines = [json.loads(line) for line in (result.run_dir / "metric-size.jsonl").read_text().splitlines()]
    assert [line["results"]["size"] for line in lines] == [nimg / 2 for nimg, _ in seen]
    assert all(line["seed"] == 7 and (result.run_dir / line["snapshot_pkl"]).exists() for line in lines)
    assert "size 48" in (result.run_dir / "log.txt").read_text()


def test_a_metric_that_fails_is_said_and_training_goes_on(tmp_path):
    def on_snapshot(G_ema, cur_nimg):
        raise ValueError("too few pictures")

    result = train(tiny_config(tmp_path), on_snapshot, quiet=True)
    assert result.complete
    assert "not measured: too few pictures; training goes on" in (result.run_dir / "log.txt").read_text()


def test_a_callback_that_returns_nothing_leaves_no_file(tmp_path):
    result = train(tiny_config(tmp_path), lambda G_ema, cur_nimg: None, quiet=True)
    assert not list(result.run_dir.glob("metric-*"))
