import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run_ranks

from styleforge.training import probe, resume, train
from styleforge.training.phases import Losses
from styleforge.training.probe import Choice, Growth, by_estimate, choose_batch_gpu, heaviest, possible_sizes
from styleforge.training.run_dir import read_options

from . import sessions
from .tiny_runs import assert_same_run, growing_config, tiny_config

CPU = torch.device("cpu")


@pytest.fixture
def small_memory(monkeypatch):
    """``small_memory(n)``: R1 finds no memory for more than n images, and trials are made as on a GPU."""

    def install(limit):
        r1 = Losses.discriminator_r1

        def guarded(self, batch, report):
            if len(batch.real) > limit:
                torch.empty(1 << 50)  # a million gigabytes: refused by the allocator itself
            return r1(self, batch, report)

        monkeypatch.setattr(Losses, "discriminator_r1", guarded)
        monkeypatch.setattr(
            probe, "_largest_by_estimate", lambda config, sizes: probe.largest_that_runs(config, CPU, sizes)
        )

    return install


def test_sizes_divide_the_share(tmp_path):
    assert list(possible_sizes(tiny_config(tmp_path, batch=12))) == [12, 6, 4, 3, 2, 1]


def test_sizes_divide_the_share_of_every_resolution(tmp_path):
    """Shares of 48, 24 and 12 images at 8², 16² and 32²."""
    assert list(possible_sizes(growing_config(tmp_path, batch=12))) == [48, 24, 12, 6, 4, 3, 2, 1]


def test_most_memory_is_needed_while_the_full_resolution_fades_in(tmp_path):
    config = growing_config(tmp_path, batch=4)
    assert heaviest(config, 8) == (0.5, 4, 4.0)
    assert heaviest(tiny_config(tmp_path), 8) == (0.0, 8, 8.0)


def test_most_memory_may_be_needed_at_a_low_resolution_with_a_large_batch(tmp_path):
    config = growing_config(tmp_path, batch=2)
    config = replace(config, growing=replace(config.growing, batch_factor_by_resolution={8: 100}))
    assert heaviest(config, 200) == (2.0, 200, 50.0)
    assert heaviest(config, 4) == (0.5, 2, 2.0)


def test_an_estimate_is_a_straight_line_below_four_fifths(tmp_path):
    config = tiny_config(tmp_path, batch=8)
    growth, sizes = Growth(one=100, two=110), [8, 4, 2, 1]
    assert by_estimate(config, sizes, growth, 213).batch_gpu == 8  # 170 of 213
    assert by_estimate(config, sizes, growth, 212).batch_gpu == 4
    assert by_estimate(config, sizes, growth, 125).batch_gpu == 1
    with pytest.raises(MemoryError, match="--cbase"):
        by_estimate(config, sizes, growth, 124)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process its memory")
def test_another_process_measures_how_it_grows(tmp_path):
    growth = probe.measure_growth(tiny_config(tmp_path))
    assert 1 << 20 < growth.one <= growth.two < 1 << 31


def test_a_process_that_cannot_measure_costs_the_choice_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "_MEASURE", "raise OSError('no such file')")
    monkeypatch.setattr(probe, "available_memory", lambda: 1 << 30)
    choice = choose_batch_gpu(tiny_config(tmp_path), CPU)
    assert choice.batch_gpu == 8 and "no such file" in choice.reason


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not kill for want of memory")
def test_a_process_killed_for_memory_says_how_many_fit(tmp_path, monkeypatch):
    die = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(probe, "available_memory", lambda: 1 << 30)
    monkeypatch.setattr(probe, "_MEASURE", f"print(1000, flush=True); {die}")
    assert choose_batch_gpu(tiny_config(tmp_path), CPU).batch_gpu == 1
    monkeypatch.setattr(probe, "_MEASURE", die)
    with pytest.raises(MemoryError, match="one image"):
        choose_batch_gpu(tiny_config(tmp_path), CPU)


def test_where_memory_is_unknown_all_images_are_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "available_memory", lambda: None)
    for device in (CPU, torch.device("mps")):
        choice = choose_batch_gpu(tiny_config(tmp_path), device)
        assert choice.batch_gpu == 8 and choice.reason.startswith("all of them, since")


@pytest.mark.parametrize("make", [tiny_config, growing_config])
def test_trials_take_fewer_images_until_memory_suffices(tmp_path, small_memory, make):
    small_memory(2)
    choice = choose_batch_gpu(make(tmp_path), CPU)
    assert choice.batch_gpu == 2 and "4 do not fit" in choice.reason
    small_memory(0)
    with pytest.raises(MemoryError, match="--checkpoint-from") as info:
        choose_batch_gpu(make(tmp_path), CPU)
    assert "\n" not in str(info.value)


def test_other_errors_of_a_trial_are_not_taken_for_want_of_memory(tmp_path, small_memory, monkeypatch):
    small_memory(8)

    def fail(self, *_):
        raise RuntimeError("something else")

    monkeypatch.setattr(Losses, "generator_main", fail)
    with pytest.raises(RuntimeError, match="something else"):
        choose_batch_gpu(tiny_config(tmp_path), CPU)


def test_a_run_is_the_one_with_the_number_chosen(tmp_path, small_memory):
    """Bit for bit: the trials leave weights, optimizers, running means, counters and random numbers alone."""
    small_memory(2)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    chosen = train(tiny_config(tmp_path, desc="auto"), quiet=True, auto_batch=True).run_dir
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    given = train(tiny_config(tmp_path, desc="given", batch_gpu=2), quiet=True).run_dir
    assert_same_run(chosen, given)
    assert "2 images at a time in each process (--batch-gpu auto)" in Path(chosen, "log.txt").read_text()
    assert read_options(chosen).batch_gpu == 2


def test_a_run_may_go_on_with_what_fits_now(tmp_path, small_memory):
    run_dir = train(tiny_config(tmp_path, total_kimg=0.008), quiet=True).run_dir
    small_memory(4)
    resume(run_dir, changes={"total_kimg": 0.016}, quiet=True, auto_batch=True)
    assert read_options(run_dir).batch_gpu == 4
    assert json.loads(Path(run_dir, "training_options.json").read_text())["total_kimg"] == 0.016


def test_processes_agree_on_the_least(tmp_path):
    config = tiny_config(tmp_path, batch=16)
    assert run_ranks(sessions.choose, 2, config, [4, 2]) == [2, 2]
    errors = run_ranks(sessions.choose, 2, config, [4, None])
    assert [type(error) for error in errors] == [MemoryError, MemoryError]


def test_a_choice_is_one_line():
    assert Choice(batch_gpu=3, reason="so").describe() == "3 images at a time in each process (--batch-gpu auto): so"
