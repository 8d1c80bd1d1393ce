import json
import sys

import numpy as np
import pytest
import torch
from processes import run_ranks

from styleforge import dist
from styleforge.training.stats import Collector, PhaseTimer, StatsLog, single

CPU = torch.device("cpu")


def test_moments_are_those_of_all_values():
    collector, values = Collector(CPU), np.random.default_rng(0).normal(3, 2, 60)
    for part in np.split(values, [1, 7, 30]):
        collector.report("a", torch.from_numpy(part))
    collector.report("b", torch.ones(2, 3, dtype=torch.float16))
    summary = collector.summary()
    assert summary["a"] == {"num": 60, "mean": pytest.approx(values.mean()), "std": pytest.approx(values.std())}
    assert summary["b"] == {"num": 6, "mean": 1, "std": 0}


def test_a_summary_starts_afresh():
    collector = Collector(CPU)
    collector.report("a", torch.ones(3))
    assert collector.summary()["a"]["num"] == 3
    assert collector.summary() == {}


def test_reports_hold_no_graph():
    collector, x = Collector(CPU), torch.ones(3, requires_grad=True)
    collector.report("a", x * 2)
    assert not collector.moments["a"].requires_grad


def test_a_value_that_is_not_finite_shows():
    collector = Collector(CPU)
    for value in (1.0, float("nan"), 2.0):
        collector.report("a", torch.tensor(value))
    assert np.isnan(collector.summary()["a"]["mean"])


def half_each():
    with dist.Group(CPU):
        collector = Collector(CPU)
        collector.report("a", torch.arange(5.0) + 5 * dist.rank())
        return collector.summary()


def test_processes_are_summed_up():
    expected = {"num": 10, "mean": pytest.approx(4.5), "std": pytest.approx(np.arange(10).std())}
    assert run_ranks(half_each, 2) == [{"a": expected}] * 2


def test_phases_are_timed():
    timer = PhaseTimer(CPU)
    for _ in range(3):
        timer.stop("Timing/Gmain", timer.start())
    summary = timer.summary()
    assert summary["Timing/Gmain"]["num"] == 3
    assert 0 <= summary["Timing/Gmain"]["mean"] < 1
    assert timer.summary() == {}


def lines_of(run_dir):
    return [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]


@pytest.fixture
def no_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


def test_every_tick_is_one_line_of_json(tmp_path, no_tensorboard):
    log = StatsLog(tmp_path)
    for nimg in (1000, 2000):
        log.write({"Progress/kimg": single(nimg / 1000)}, nimg)
        assert len(lines_of(tmp_path)) == nimg // 1000  # at once, not when the file is closed
    log.close()
    for line, nimg in zip(lines_of(tmp_path), (1000, 2000), strict=True):
        assert line.pop("timestamp") > 0
        assert line == {"Progress/kimg": {"num": 1, "mean": nimg / 1000, "std": 0}, "cur_nimg": nimg}


def test_going_on_takes_back_what_is_beyond_the_checkpoint(tmp_path, no_tensorboard):
    log = StatsLog(tmp_path)
    for nimg in (8, 40, 80):
        log.write({"a": single(nimg)}, nimg)
    log.close()
    with (tmp_path / "stats.jsonl").open("a") as file:
        file.write('{"a": {"num": 1, "me')  # what a crash leaves
    log = StatsLog(tmp_path, resume_nimg=40)
    log.write({"a": single(0)}, 56)
    log.close()
    assert [line["cur_nimg"] for line in lines_of(tmp_path)] == [8, 40, 56]


@pytest.mark.parametrize("damage", ["\n", "null\n", "[1]\n", '{"cur_nimg": "x"}\n', "\0\0\0\n"])
def test_damaged_lines_are_taken_back(tmp_path, no_tensorboard, damage):
    (tmp_path / "stats.jsonl").write_text('{"cur_nimg": 8}\n' + damage + '{"cur_nimg": 16}\n')
    StatsLog(tmp_path, resume_nimg=100).close()
    assert [line["cur_nimg"] for line in lines_of(tmp_path)] == [8, 16]


def test_going_on_without_statistics_starts_them(tmp_path, no_tensorboard):
    StatsLog(tmp_path, resume_nimg=100).close()
    assert lines_of(tmp_path) == []


def test_a_missing_tracker_is_said(tmp_path, no_tensorboard, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"--wandb: .* pip install wandb"):
        StatsLog(tmp_path, wandb_project="x")


class Tracker:
    """Stands in for TensorBoard's writer and for Weights & Biases."""

    def __init__(self, *arguments, **keywords):
        self.calls = []
        self.keywords = keywords
        Tracker.last = self

    def __getattr__(self, name):
        return lambda *arguments, **keywords: self.calls.append((name, arguments, keywords))


def test_tensorboard_gets_every_mean_when_it_is_there(tmp_path, monkeypatch):
    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = Tracker
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = StatsLog(tmp_path, resume_nimg=7)
    log.write({"Loss/G/loss": single(0.5)}, 8)
    log.close()
    assert Tracker.last.keywords == {"purge_step": 8}
    assert Tracker.last.calls[0] == ("add_scalar", ("Loss/G/loss", 0.5), {"global_step": 8})


def test_weights_and_biases_gets_every_mean_when_asked(tmp_path, no_tensorboard, monkeypatch):
    module = type(sys)("wandb")
    module.init = Tracker
    monkeypatch.setitem(sys.modules, "wandb", module)
    log = StatsLog(tmp_path, wandb_project="mine")
    log.write({"Loss/G/loss": single(0.5)}, 8)
    log.close()
    assert Tracker.last.keywords["project"] == "mine"
    assert Tracker.last.calls == [("log", ({"Loss/G/loss": 0.5},), {"step": 8}), ("finish", (), {})]
