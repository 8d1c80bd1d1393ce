from dataclasses import replace

import pytest
import torch

from styleforge.training import resume, train
from styleforge.training import step as module
from styleforge.training.step import check_batches, share_of

from .tiny_runs import growing_config, read_snapshot, snapshots, stats_without_times, step_gradients, tiny_config

CASES = [
    (tiny_config, "config-e", {"c_dim": 3, "batch_gpu": 4}),
    (tiny_config, "config-f", {}),
    (tiny_config, "config-f", {"precision": "bf16"}),
    (growing_config, "config-a", {}),
    (growing_config, "config-d", {}),
]


def test_batches_are_shared_among_processes_and_parts(tmp_path, monkeypatch, refuses):
    config = tiny_config(tmp_path, batch=24)
    assert share_of(config, 24) == (24, 24)
    assert share_of(replace(config, batch_gpu=8), 48) == (48, 8)
    assert share_of(replace(config, batch_gpu=99), 24) == (24, 24)
    with refuses("batch_gpu", "7 of 24", "--batch-gpu"):
        share_of(replace(config, batch_gpu=7), 24)
    monkeypatch.setattr(module.dist, "world_size", lambda: 4)
    assert share_of(replace(config, batch_gpu=3), 24) == (6, 3)
    with refuses("batch", "24 for 5 processes", "--batch"):
        monkeypatch.setattr(module.dist, "world_size", lambda: 5)
        check_batches(config)


@pytest.mark.parametrize(("make", "preset", "changes"), CASES, ids=lambda x: getattr(x, "__name__", str(x)))
def test_activations_computed_again_give_the_same_gradients_bit_for_bit(tmp_path, make, preset, changes):
    """Of every phase, the gradients of gradients of R1 and path lengths among them."""
    config = make(tmp_path, preset, **changes)
    kept = step_gradients(config)
    for resolution in (4, 16):
        again = step_gradients(replace(config, checkpoint_resolution=resolution))
        assert len(again) == len(kept)
        for phase, expected in zip(again, kept, strict=True):
            assert [x is None for x in phase] == [x is None for x in expected]
            assert all(torch.equal(x, y) for x, y in zip(phase, expected, strict=True) if x is not None)


@pytest.mark.parametrize("make", [tiny_config, growing_config])
def test_a_run_that_computes_activations_again_is_the_same_bit_for_bit(tmp_path, make):
    """Also when that is switched on in the midst of it."""
    kept = train(make(tmp_path, desc="kept"), quiet=True).run_dir
    again = train(make(tmp_path, desc="again", checkpoint_resolution=8), quiet=True).run_dir
    switched = train(make(tmp_path, desc="switched", total_kimg=0.048), quiet=True).run_dir
    total_kimg = make(tmp_path).total_kimg
    resume(switched, changes={"total_kimg": total_kimg, "checkpoint_resolution": 8}, quiet=True)
    tensors, _ = read_snapshot(snapshots(kept)[-1])
    for run_dir in (again, switched):
        others, _ = read_snapshot(snapshots(run_dir)[-1])
        assert tensors.keys() == others.keys()
        different = [name for name in tensors if not name.startswith("training.stats")]
        different = [name for name in different if not torch.equal(tensors[name], others[name])]
        assert not different, different
    assert stats_without_times(again) == stats_without_times(kept)
