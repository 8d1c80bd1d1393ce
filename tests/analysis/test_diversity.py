import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_generators import tiny_generator

from styleforge.analysis.diversity import SAMPLES, diversity_report, extract, matching_tau
from styleforge.data import ImageDataset
from styleforge.latents import GaussianLatents
from styleforge.metrics.draws import IMAGES, draw_z
from styleforge.metrics.pictures import GeneratedPictures
from styleforge.metrics.tools import Tools

CURVE = [(1.0, 10.0), (0.5, 20.0), (0.25, 40.0)]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLEFORGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i in range(50):
        noise = np.random.RandomState(i).randint(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return ImageDataset(folder)


def report(data, **arguments):
    G = tiny_generator()
    pictures = GeneratedPictures(G, seed=0, labels=data, batch=16)
    tools = Tools(extractor="random-vgg")
    before = G.synthesis(torch.ones(1, G.num_ws, 8), noise_mode="const")
    made = diversity_report(pictures, tools, num=60, num_fid=64, **arguments)
    assert torch.equal(G.synthesis(torch.ones(1, G.num_ws, 8), noise_mode="const"), before)
    return made


def test_the_threshold_of_an_fid_lies_on_the_curve():
    assert matching_tau(20, 8, CURVE) == pytest.approx(0.5)
    assert matching_tau(15, 8, CURVE) == pytest.approx(math.sqrt(0.5))
    assert matching_tau(9, 8, CURVE) == pytest.approx(math.sqrt(2))  # between none, taken as 2, and 1
    assert matching_tau(8, 8, CURVE) == pytest.approx(2)


def test_an_fid_that_is_not_reached_has_no_threshold():
    assert matching_tau(41, 8, CURVE) is None
    assert matching_tau(7, 8, CURVE) is None
    assert matching_tau(5, 5, [(1.0, 5.0)]) is None  # a flat curve tells nothing


def test_the_weakest_of_several_thresholds_is_taken():
    dip = [(1.0, 6.0), (0.5, 12.0)]
    assert 1 < matching_tau(7, 8, dip) < 2  # where the curve falls, not where it rises again


def test_means_and_deviations_are_numpys():
    G = tiny_generator()
    pictures = GeneratedPictures(G, seed=3, batch=8)
    extractor = Tools(extractor="random-vgg").extractor_for("fid")
    features, look = extract(pictures, extractor, 20)
    x = torch.cat([pictures(range(first, min(first + 8, 20))) for first in range(0, 20, 8)])
    assert features.shape == (20, extractor.num_features) and torch.equal(look.samples, x[:SAMPLES])
    np.testing.assert_allclose(look.mean, x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(look.deviation, x.numpy().astype(float).std(0), rtol=1e-9, atol=1e-9)


def test_corrections_are_compared_at_equal_fid(tmp_path, data):
    calls = []
    made = report(data, psis=[0.7], taus=[1.0, 0.3, 0.1], progress=lambda *call: calls.append(call))
    assert made.plain.similarity == pytest.approx(1) and made.plain.name == "none"
    assert [psi for psi, _ in made.psi_curve] == [1.0, 0.7] and [tau for tau, _ in made.tau_curve] == [1.0, 0.3, 0.1]
    truncated, compressed = made.pairs[0]
    assert truncated.similarity < 1 and truncated.deviation < made.plain.deviation
    if compressed is not None:
        assert 0.1 <= compressed.tau <= 2 and compressed.psi == 1
    assert calls and made.metric == "fid@random-vgg"
    files = made.write(tmp_path, {"num": 60})
    assert [file.name for file in files] == ["diversity.json", "diversity.png", "diversity-pictures.png"]
    values = json.loads(files[0].read_text())
    assert values["summary"] == made.summary() and values["plain"]["tau"] is None
    assert values["pairs"][0]["truncation"]["psi"] == 0.7
    rows = 3 if compressed is not None else 2
    assert Image.open(files[2]).size == (18 * (SAMPLES + 2) - 2, 18 * rows - 2)


def test_components_are_those_of_v_in_standard_deviations(data):
    made = report(data, psis=[0.7], taus=[1.0])
    worst, best = made.components.worst, made.components.best
    assert worst.shape == best.shape == (3, 8)
    assert made.components.excess == pytest.approx(float(worst.abs().mean() / best.abs().mean()))
    G = tiny_generator()
    gaussian = GaussianLatents.fit_cached(G)
    variances, axes = gaussian.principal_axes()
    v = gaussian.w_to_v(G.mapping.map(draw_z(0, range(60), G.z_dim, stream=IMAGES))).double()
    components = (v - gaussian.mean) @ axes / variances.sqrt()
    for row in worst:
        assert (components - row).abs().amax(1).min() < 1e-4


def test_no_dataset_and_too_few_pictures_are_refused(refuses, data):
    G = tiny_generator()
    with refuses("no dataset", "--data"):
        diversity_report(GeneratedPictures(G, seed=0), Tools(extractor="random-vgg"))
    with refuses("at least 40", "--num"):
        diversity_report(GeneratedPictures(G, seed=0, labels=data), Tools(extractor="random-vgg"), num=39)
