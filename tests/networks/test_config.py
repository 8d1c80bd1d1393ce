import dataclasses
import itertools
import json

import numpy as np
import pytest

from styleforge.networks import DiscriminatorConfig, GeneratorConfig, network_preset, preset_names


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("resolution", [1024, (512, 384)])
def test_every_preset_survives_json(name, resolution):
    for config in network_preset(name, resolution, img_channels=4, c_dim=10):
        again = type(config).from_json(config.to_json())
        assert again == config
        assert type(again.resolution) is type(config.resolution)
        assert json.loads(config.to_json()) == config.to_dict()


def test_values_other_than_the_defaults_survive_json():
    G = GeneratorConfig(
        resolution=(96, 64),
        img_channels=1,
        c_dim=3,
        label_mode="matrix",
        channel_base=123,
        channel_max=45,
        architecture="orig",
        progressive=True,
        blur=False,
        conv_clamp=256.0,
        z_dim=7,
        w_dim=7,
        mapping_layers=0,
        mapping_features=9,
        mapping_lr_multiplier=0.5,
        style_block="pixel_instance",
        input="latent",
        use_noise=False,
        use_styles=False,
    )
    D = DiscriminatorConfig(
        resolution=64,
        architecture="skip",
        convention="stylegan",
        mbstd_group=8,
        mbstd_channels=2,
        head_features=11,
        mapping_layers=3,
        mapping_features=13,
    )
    for config in (G, D):
        defaults = type(config)(resolution=8)
        if config is G:  # so that a new field cannot be left out here
            for field in dataclasses.fields(config):
                assert getattr(config, field.name) != getattr(defaults, field.name), field.name
        assert type(config).from_json(config.to_json()) == config


def test_every_field_has_a_docstring():
    import ast
    import inspect

    for owner in (GeneratorConfig, DiscriminatorConfig, GeneratorConfig.__mro__[1]):
        body = ast.parse(inspect.getsource(owner)).body[0].body
        for node, after in itertools.pairwise(body):
            if isinstance(node, ast.AnnAssign):
                assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant), ast.unparse(node)


def test_channels_follow_the_paper():
    assert GeneratorConfig(resolution=1024).channels == [512, 512, 512, 512, 512, 256, 128, 64, 32]  # config F
    config_e = GeneratorConfig(resolution=1024, channel_base=16384)
    assert config_e.channels == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    assert GeneratorConfig(resolution=32, channel_base=100, channel_max=20).channels == [20, 12, 6, 3]


@pytest.mark.parametrize(("resolution", "num_ws"), [(8, 4), (256, 14), (1024, 18), ((512, 384), 16), ((320, 448), 14)])
def test_two_ws_per_resolution(resolution, num_ws):
    assert GeneratorConfig(resolution=resolution).num_ws == num_ws


def test_a_square_pair_is_the_side():
    assert GeneratorConfig(resolution=(64, 64)) == GeneratorConfig(resolution=64)
    assert GeneratorConfig.from_dict({"resolution": [96, 64]}).size == (96, 64)


@pytest.mark.parametrize("owner", [GeneratorConfig, DiscriminatorConfig])
@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"resolution": 100}, ["100×100", "nearest legal sizes", "96×96"]),
        ({"resolution": None}, ["None"]),
        ({"resolution": "64"}, ["'64'"]),
        ({"resolution": 64.0}, ["64.0"]),
        ({"resolution": (64, 64, 3)}, ["(64, 64, 3)"]),
        ({"img_channels": 0}, ["img_channels", "0", "1 to 16"]),
        ({"img_channels": 17}, ["img_channels", "17", "1 to 16"]),
        ({"c_dim": -1}, ["c_dim", "-1"]),
        ({"c_dim": True}, ["c_dim", "True"]),
        ({"channel_max": 0}, ["channel_max"]),
        ({"channel_base": 2.5}, ["channel_base", "2.5"]),
        ({"channel_base": 63}, ["channel_base", "63", "64 or more", "--cbase"]),
        ({"architecture": "residual"}, ["architecture", "'residual'", "orig, skip, resnet"]),
        ({"architecture": "skip", "progressive": True}, ["progressive", "'skip'", "'orig'", "progressive=False"]),
        ({"label_mode": "onehot"}, ["label_mode", "'onehot'", "embedding, matrix"]),
        ({"mapping_layers": -1}, ["mapping_layers", "-1"]),
        ({"mapping_features": 0}, ["mapping_features", "0"]),
    ],
)
def test_bad_values_are_refused(refuses, owner, values, parts):
    with refuses(*parts):
        owner(**{"resolution": 64} | values)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"z_dim": 0}, ["z_dim", "0"]),
        ({"w_dim": "512"}, ["w_dim", "'512'"]),
        ({"style_block": "adain"}, ["style_block", "'adain'", "demodulation, instance, pixel, pixel_instance, none"]),
        ({"input": "noise"}, ["input", "'noise'", "auto, constant, latent"]),
        ({"mapping_layers": 0, "z_dim": 8, "w_dim": 9}, ["mapping_layers", "z_dim 8", "w_dim 9", "equal"]),
        ({"input": "constant", "use_styles": False}, ["input", "use_styles=False", "'latent'"]),
    ],
)
def test_bad_values_of_a_generator_are_refused(refuses, values, parts):
    with refuses(*parts):
        GeneratorConfig(**{"resolution": 64} | values)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"convention": "stylegan3"}, ["convention", "'stylegan3'"]),
        ({"mbstd_group": 0}, ["mbstd_group", "0"]),
        ({"mbstd_channels": -1}, ["mbstd_channels", "-1"]),
        ({"mbstd_channels": 3}, ["mbstd_channels", "3", "512 channels", "divisor"]),
        ({"head_features": 0}, ["head_features", "0"]),
    ],
)
def test_bad_values_of_a_discriminator_are_refused(refuses, values, parts):
    with refuses(*parts):
        DiscriminatorConfig(**{"resolution": 64} | values)


def test_unreadable_json_is_refused(refuses):
    with refuses("GeneratorConfig", "'colour'", "newer"):
        GeneratorConfig.from_dict({"resolution": 64, "colour": "red"})
    with refuses("no field 'resolution'"):
        DiscriminatorConfig.from_dict({"c_dim": 3})
    with refuses("not JSON"):
        GeneratorConfig.from_json("{")
    with refuses("list"):
        GeneratorConfig.from_json("[1]")


def test_numpy_integers_are_taken_as_whole_numbers():
    config = GeneratorConfig(
        resolution=(np.int64(16), np.int32(32)), img_channels=np.int64(4), channel_base=np.int64(64)
    )
    assert (config.resolution, config.img_channels) == ((16, 32), 4)
    assert GeneratorConfig.from_json(config.to_json()) == config
    assert GeneratorConfig(resolution=np.int64(16)).to_json() == GeneratorConfig(resolution=16).to_json()
