import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest

from styleforge.training import GrowingConfig, TrainConfig, training_preset, training_preset_names


@pytest.fixture
def config():
    return training_preset("config-e", 16)


@pytest.mark.parametrize("name", training_preset_names())
@pytest.mark.parametrize("size", [64, (48, 64)])
def test_every_preset_survives_json(name, size):
    config = training_preset(name, size, img_channels=1, c_dim=5, device="cpu")
    copy = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert copy == config
    assert isinstance(copy.betas, tuple)
    if copy.growing is not None:
        assert all(isinstance(resolution, int) for resolution in copy.growing.lr_by_resolution)


def test_every_field_survives_json(config):
    """Each field is changed, so that none is forgotten on the way."""
    other = training_preset("config-d", 32, c_dim=2)
    values = {
        "generator": other.generator,
        "discriminator": other.discriminator,
        "growing": GrowingConfig(
            start_resolution=4, train_kimg=1.5, fade_kimg=2, lr_by_resolution={8: 0.1}, batch_factor_by_resolution={}
        ),
        "betas": (0.5, 0.9),
        "precision": "bf16",
        "subset": 7,
        "batch_gpu": 3,
        "checkpoint_resolution": 64,
        "ema_rampup": 0.25,
    }
    for field in dataclasses.fields(config):
        old = getattr(config, field.name)
        change = {str: f"{old}x", bool: not old if isinstance(old, bool) else None}.get(type(old))
        if isinstance(old, int | float) and not isinstance(old, bool):
            change = old / 2 if 0 < old < 1 else old + 1
        values.setdefault(field.name, change)
    changed = TrainConfig(**values)
    assert all(getattr(changed, f.name) != getattr(config, f.name) for f in dataclasses.fields(config))
    assert TrainConfig.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed


def test_options_from_before_a_field_existed_are_read(config):
    values = config.to_dict()
    del values["checkpoint_resolution"]
    assert TrainConfig.from_dict(values) == config


def test_the_dict_is_a_copy(config):
    values = training_preset("config-d", 16).to_dict()
    values["growing"]["lr_by_resolution"].clear()
    assert training_preset("config-d", 16).growing.lr_by_resolution


BAD = [
    ("total_kimg", 0, "--kimg"),
    ("batch", 0, "--batch"),
    ("batch", -4, "--batch"),
    ("batch_gpu", 0, "--batch-gpu"),
    ("checkpoint_resolution", 0, "--checkpoint-from"),
    ("g_lr", 0, "--glr"),
    ("d_lr", -1, "--dlr"),
    ("eps", 0, "--set eps=…"),
    ("kimg_per_tick", 0, "--tick"),
    ("snapshot_ticks", 0, "--snap"),
    ("pl_batch_shrink", 0, "--set pl_batch_shrink=…"),
    ("gamma", -1, "--gamma"),
    ("r1_interval", -1, "--set r1_interval=…"),
    ("pl_weight", -0.1, "--set pl_weight=…"),
    ("pl_interval", -1, "--set pl_interval=…"),
    ("pl_interval", 0, "--set pl_interval=…"),
    ("workers", -1, "--workers"),
    ("keep", -1, "--keep"),
    ("ema_kimg", -1, "--set ema_kimg=…"),
    ("seed", -1, "--seed"),
    ("seed", 2**32, "--seed"),
    ("precision", "fp8", "--precision"),
    ("gamma", float("nan"), "--gamma"),
    ("g_lr", float("nan"), "--glr"),
    ("total_kimg", float("inf"), "--kimg"),
    ("style_mixing_prob", 1.5, "--set style_mixing_prob=…"),
    ("betas", (0.0, 1.0), "--set betas=…"),
    ("subset", 0, "--subset"),
    ("batch", "32", "--batch"),
    ("batch", 1.5, "--batch"),
    ("batch", True, "--batch"),
    ("batch_gpu", 2.0, "--batch-gpu"),
    ("workers", 0.5, "--workers"),
    ("pl_batch_shrink", 1.5, "--set pl_batch_shrink=…"),
    ("gamma", "high", "--gamma"),
    ("gamma", None, "--gamma"),
    ("mirror", "no", "--set mirror=…"),
    ("mirror", 0, "--set mirror=…"),
    ("data", None, "--set data=…"),
]


@pytest.mark.parametrize(("field", "value", "flag"), BAD)
def test_a_value_out_of_range_is_refused_with_field_and_flag(config, refuses, field, value, flag):
    with refuses(field, f"got {value!r}", f"({flag})"):
        replace(config, **{field: value})


def test_numbers_of_numpy_become_those_of_json(config):
    changed = replace(config, batch=np.int64(8), gamma=np.float32(0.5))
    assert json.loads(json.dumps(changed.to_dict()))["batch"] == 8
    assert changed.to_dict()["gamma"] == 0.5


def test_networks_must_fit_each_other(config, refuses):
    for other in (training_preset("config-e", 32), training_preset("config-e", 16, img_channels=1)):
        with refuses("generator, discriminator"):
            replace(config, discriminator=other.discriminator)
    with refuses("generator, discriminator"):
        replace(config, discriminator=training_preset("config-e", 16, c_dim=2).discriminator)


def test_a_growing_schedule_wants_networks_that_grow(config, refuses):
    with refuses("growing"):
        replace(config, growing=GrowingConfig())
    with refuses("growing"):
        replace(training_preset("config-a", 16), growing=None)


@pytest.mark.parametrize(
    ("field", "value"), [("start_resolution", 2), ("start_resolution", 12), ("train_kimg", -1), ("fade_kimg", -1)]
)
def test_a_growing_schedule_out_of_range_is_refused(refuses, field, value):
    with refuses(f"growing.{field}", f"got {value!r}"):
        GrowingConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("lr_by_resolution", 0), ("lr_by_resolution", -1.0), ("batch_factor_by_resolution", 0),
     ("batch_factor_by_resolution", 1.5)],
)  # fmt: skip
def test_a_table_of_a_growing_schedule_out_of_range_is_refused(refuses, field, value):
    with refuses(f"growing.{field}", f"got {value!r} at 16"):
        GrowingConfig(**{field: {16: value}})


def test_a_growing_schedule_must_get_on(refuses):
    with refuses("growing.train_kimg"):
        GrowingConfig(train_kimg=0, fade_kimg=0)


def test_options_of_another_version_are_refused_by_name(config, refuses):
    values = config.to_dict()
    with refuses("'later_field'"):
        TrainConfig.from_dict(values | {"later_field": 1})
    with refuses("'generator'"):
        TrainConfig.from_dict({key: value for key, value in values.items() if key != "generator"})


def test_options_damaged_by_hand_are_refused(config, refuses):
    values = config.to_dict()
    growing = training_preset("config-d", 16).to_dict()
    for bad in (
        values | {"betas": 0.9},
        values | {"generator": None},
        growing | {"growing": growing["growing"] | {"later_field": 1}},
        growing | {"growing": growing["growing"] | {"lr_by_resolution": 0.1}},
        growing | {"growing": 3},
    ):
        with refuses("training options"):
            TrainConfig.from_dict(bad)
