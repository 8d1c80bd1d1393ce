import dataclasses

import pytest
import torch
from torch import nn

from styleforge.networks import Discriminator, Generator
from styleforge.ops import upsample2d
from styleforge.training.transfer import TransferReport, transfer

from .tiny_runs import tiny_config


def networks(folder, **changes):
    config = tiny_config(folder, **changes)
    return Generator(config.generator), Discriminator(config.discriminator)


def states(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_report_is_true(report, before, after, source):
    """Every list says what has happened, and every tensor is in exactly one."""
    assert sorted(report.copied + report.resized + report.fresh) == sorted(after)
    assert sorted(report.left_out) == sorted(set(source) - set(after))
    for name in report.copied:
        assert torch.equal(after[name], source[name])
    for name in report.fresh:
        assert torch.equal(after[name], before[name])
    for name in report.resized:
        both = tuple(slice(min(a, b)) for a, b in zip(after[name].shape, source[name].shape, strict=True))
        assert torch.equal(after[name][both], source[name][both])
        outside = torch.ones_like(after[name], dtype=torch.bool)
        outside[both] = False
        assert torch.equal(after[name][outside], before[name][outside])


def moved(source, target):
    before = states(target)
    report = transfer(target, source)
    assert_report_is_true(report, before, states(target), states(source))
    return report


def test_the_same_network_is_copied_whole(tmp_path):
    for source, target in zip(networks(tmp_path), networks(tmp_path), strict=True):
        report = moved(source, target)
        assert report.copied == list(target.state_dict())
        assert not report.resized + report.fresh + report.left_out


def test_a_larger_network_takes_over_the_blocks_of_the_smaller_one(tmp_path):
    (G, D), (large_G, large_D) = networks(tmp_path), networks(tmp_path, size=32)
    report = moved(G, large_G)
    assert not report.resized + report.left_out
    assert report.fresh
    assert all(name.startswith("synthesis.b32.") for name in report.fresh)
    report = moved(D, large_D)
    assert all(name.startswith("b32.") for name in report.fresh)
    assert all(name.startswith("b16.fromrgb") for name in report.left_out)  # the smaller one's first layer


def test_a_smaller_network_leaves_the_last_blocks_out(tmp_path):
    (G, _), (large_G, _) = networks(tmp_path), networks(tmp_path, size=32)
    report = moved(large_G, G)
    assert not report.fresh + report.resized
    assert all(name.startswith("synthesis.b32.") for name in report.left_out)


def test_a_transferred_network_makes_the_pictures_of_its_source(tmp_path):
    """A skip generator of twice the size adds its last layer to what the smaller one makes."""
    (G, _), (large_G, _) = networks(tmp_path), networks(tmp_path, size=32)
    transfer(large_G, G)
    last = large_G.synthesis.get_submodule("b32")
    with torch.no_grad():
        last.torgb.weight.zero_()
        z = torch.randn(3, G.z_dim)
        expected = upsample2d(G(z, noise_mode="const"), last.f)
        torch.testing.assert_close(large_G(z, noise_mode="const"), expected)


@pytest.mark.parametrize(("few", "many"), [(0, 3), (2, 5)])
def test_another_number_of_labels_concerns_the_label_layers_alone(tmp_path, few, many):
    one, other = networks(tmp_path, c_dim=few), networks(tmp_path, c_dim=many)
    for source, target in (*zip(one, other, strict=True), *zip(other, one, strict=True)):
        report = moved(source, target)
        touched = {name.rsplit(".", 1)[0] for name in report.resized + report.fresh + report.left_out}
        assert touched
        first = ("mapping.", "b4.mapping.", "b4.out") if few == 0 else ("mapping.embed", "b4.mapping.embed")
        assert all(name.startswith(first) for name in touched)


def test_another_number_of_channels_concerns_the_rgb_layers_alone(tmp_path):
    one, other = networks(tmp_path), networks(tmp_path, img_channels=1)
    for source, target in (*zip(one, other, strict=True), *zip(other, one, strict=True)):
        report = moved(source, target)
        assert report.resized
        assert all("rgb" in name for name in report.resized)
        assert not report.fresh + report.left_out


def test_noise_maps_of_another_size_stay_fresh(tmp_path):
    one = Generator(tiny_config(tmp_path).generator)
    other = Generator(dataclasses.replace(one.config, resolution=(16, 24)))
    report = moved(one, other)
    assert {name for name in report.fresh if name.endswith("noise.const")}
    assert not [name for name in report.resized if name.endswith("noise.const")]


def test_tensors_of_another_rank_stay_fresh():
    report = moved(nn.Linear(3, 2), nn.Conv2d(3, 2, 1))
    assert (report.copied, report.fresh) == (["bias"], ["weight"])


def test_the_weights_may_still_be_trained(tmp_path):
    (G, _), (target, _) = networks(tmp_path), networks(tmp_path)
    transfer(target, G)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in target.parameters())


def test_a_report_names_what_was_not_copied():
    report = TransferReport(copied=["a"] * 5, resized=["b"], left_out=[f"c{i}" for i in range(10)])
    assert report.describe() == (
        "5 tensors copied; 1 resized (b); 10 left out (c0, c1, c2, c3, c4, c5, c6, c7 and 2 more)"
    )
    assert TransferReport(copied=["a"]).describe() == "1 tensors copied"
