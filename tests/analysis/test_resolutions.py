import json

import numpy as np
import pytest
import torch
from tiny_generators import tiny_generator

from styleforge.analysis.resolutions import ResolutionReport, contributions, parts_sheet, separate
from styleforge.latents import generate_ws
from styleforge.networks import Generator, GeneratorConfig


@pytest.fixture(scope="module")
def G():
    return tiny_generator()


def outputs_of_rgb(G, ws):
    """What each tRGB puts out, by the definition: the running sum before and after it."""
    kept = []
    for block in G.synthesis.blocks:
        forward = block.torgb.forward
        block.torgb.forward = lambda *a, forward=forward: kept.append(forward(*a)) or kept[-1]
    try:
        G.synthesis(ws, noise_mode="const")
    finally:
        for block in G.synthesis.blocks:
            del block.torgb.forward
    return kept


def test_shares_are_those_of_numpys_deviations(G):
    outputs = [x.double().numpy() for x in outputs_of_rgb(G, generate_ws(G, range(50)))]
    stds = np.array([np.sqrt(x.transpose(1, 0, 2, 3).reshape(3, -1).var(1).mean()) for x in outputs])
    shares = contributions(G, 50, batch=7)
    assert list(shares) == [4, 8, 16]
    np.testing.assert_allclose(list(shares.values()), stds / stds.sum(), rtol=1e-5)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", ["non-square", "gray", "rgba", "conditional"])
def test_shares_of_every_kind_of_network_sum_to_one(kind):
    G = tiny_generator(kind)
    c = torch.eye(3)[1] if kind == "conditional" else None
    shares = contributions(G, ws=generate_ws(G, range(6), c=c))
    assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
    assert list(shares)[-1] == max(G.config.size)


def test_a_resolution_whose_rgb_is_made_larger_gains(G):
    G = tiny_generator()
    before = contributions(G, 20)
    G.synthesis.b8.torgb.weight.mul_(3)
    G.synthesis.b8.torgb.bias.add_(100)  # a bias is no deviation
    after = contributions(G, 20)
    ratio = before[8] * 3 / (before[8] * 3 + before[4] + before[16])
    assert after[8] == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize("kind", ["square", "non-square"])
def test_the_parts_of_a_picture_sum_to_it(kind):
    G = tiny_generator(kind)
    img, parts = separate(G, generate_ws(G, range(2)))
    assert parts.shape == (len(G.synthesis.blocks), *img.shape)
    torch.testing.assert_close(parts.sum(0), img, rtol=0, atol=1e-5)


def test_the_network_is_left_as_it_was(G):
    ws = generate_ws(G, range(4))
    before = G.synthesis(ws, noise_mode="const")
    contributions(G, 10)
    separate(G, ws)
    assert torch.equal(G.synthesis(ws, noise_mode="const"), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in G.modules())


def test_progress_counts_pictures(G):
    calls = []
    contributions(G, 10, batch=4, progress=lambda *call: calls.append(call))
    assert calls == [(4, 10), (8, 10), (10, 10)]


@pytest.mark.parametrize("architecture", ["orig", "resnet"])
def test_a_network_with_one_rgb_output_is_refused_with_those_that_have_more(refuses, architecture):
    config = {"resolution": 16, "z_dim": 8, "w_dim": 8, "channel_base": 256, "channel_max": 12}
    G = Generator(GeneratorConfig(**config, architecture=architecture)).requires_grad_(False)
    with refuses(architecture, "skip", "configs E and F"):
        contributions(G, 4)


def test_a_network_that_paints_nothing_is_refused(refuses):
    G = tiny_generator()
    for block in G.synthesis.blocks:
        block.torgb.weight.zero_()
    with refuses("constant"):
        contributions(G, 4)


@pytest.mark.parametrize("kimg", [[None], [0, 10, 20]])
def test_a_report_is_written(tmp_path, G, kimg):
    points = [(at, {4: 0.25, 8: 0.25, 16: 0.5}) for at in kimg]
    report = ResolutionReport(points=points, sheet=parts_sheet(G, generate_ws(G, range(2))))
    assert report.summary() == "Share of each resolution in the picture: 4: 25.0%, 8: 25.0%, 16: 50.0%."
    files = report.write(tmp_path, {"num": 3})
    assert [file.name for file in files] == ["resolutions.json", "resolutions.png", "resolutions-parts.png"]
    values = json.loads(files[0].read_text())
    assert values["points"] == [{"kimg": at, "contributions": {"4": 0.25, "8": 0.25, "16": 0.5}} for at in kimg]
    assert all(file.stat().st_size > 500 for file in files[1:])
