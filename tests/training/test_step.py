from dataclasses import replace

from styleforge.training import step as module
from styleforge.training.step import check_batches, share_of

from .tiny_runs import tiny_config


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
