import dataclasses

import pytest
import torch
from tiny_generators import tiny_generator

from styleforge.inversion import Attribution, Calibration, attribute, attribution, calibrate, project
from styleforge.latents import generate_images

STEPS = 40


@pytest.fixture(scope="module")
def other():
    """Another network of the same kind."""
    G = tiny_generator()
    torch.manual_seed(5)
    for parameter in G.synthesis.parameters():
        parameter.copy_(parameter + 0.5 * torch.randn_like(parameter) * parameter.abs().mean())
    return G


@pytest.fixture(scope="module")
def calibrations(G, other, pixels, foreign):
    arguments = {"num_generated": 4, "distance": pixels, "num_steps": STEPS, "batch": 9}
    return [calibrate(network, foreign, **arguments) for network in (G, other)]


def test_calibration_projects_generated_and_real_pictures(G, pixels, foreign, calibrations):
    calibration = calibrations[0]
    assert (len(calibration.generated), len(calibration.real)) == (4, 5)
    assert calibration.auc > 0.5
    real = project(G, foreign, distance=pixels, num_steps=STEPS, batch=9).distances
    assert calibration.real == pytest.approx(real.tolist(), rel=1e-3)
    assert calibration.settings["num_generated"] == 4 and calibration.settings["distance"] == "pixels"


def test_attribution_measures_against_each_networks_threshold(G, other, pixels, calibrations):
    pictures = torch.cat([part for *_, part in generate_images(G, [70, 71])])
    calls = []
    found = attribute(
        [G, other],
        pictures,
        calibrations=calibrations,
        distance=pixels,
        num_steps=STEPS,
        progress=lambda *call: calls.append(call),
    )
    for m, network in enumerate((G, other)):
        expected = project(network, pictures, distance=pixels, num_steps=STEPS).distances
        torch.testing.assert_close(found.distances[m], expected)
        torch.testing.assert_close(found.scores[m], expected / calibrations[m].threshold)
    assert calls[-1] == (2 * STEPS, 2 * STEPS) and calls == sorted(calls)


def test_the_lowest_score_wins_if_it_is_low_enough():
    found = Attribution(distances=torch.tensor([[0.1, 0.5, 0.3], [0.3, 0.2, 0.4]]), thresholds=torch.tensor([0.2, 0.1]))
    assert [found.ranking(i) for i in range(3)] == [[0, 1], [1, 0], [0, 1]]
    assert [found.maker(i) for i in range(3)] == [0, None, None]


def test_each_network_may_have_pictures_of_its_own_size(pixels):
    networks = [tiny_generator(), tiny_generator("non-square")]
    pictures = [torch.cat([part for *_, part in generate_images(G, range(2))]) for G in networks]
    arguments = {"distance": pixels, "num_steps": 2}
    calibrations = [calibrate(G, own, num_generated=2, **arguments) for G, own in zip(networks, pictures, strict=True)]
    assert attribute(networks, pictures, calibrations=calibrations, **arguments).distances.shape == (2, 2)


def test_all_classes_are_calibrated(pixels):
    G = tiny_generator("conditional")
    reals = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    assert len(calibrate(G, reals, num_generated=4, distance=pixels, num_steps=2).generated) == 4


def test_what_was_measured_in_another_way_is_refused_before_the_work(
    G, pixels, generated, calibrations, refuses, monkeypatch
):
    monkeypatch.setattr(attribution, "project", None)
    with refuses("calibrations", "another config", "calibrate again"):
        attribute([G], generated[:1], calibrations=calibrations[:1], distance=pixels, num_steps=3)
    changed = dataclasses.replace(calibrations[0], settings={**calibrations[0].settings, "distance_checksum": ""})
    with refuses("another distance_checksum"):
        attribute([G], generated[:1], calibrations=[changed], distance=pixels, num_steps=STEPS)


def test_every_network_needs_its_calibration(G, generated, refuses):
    with refuses("networks: got 1 with 0 calibrations"):
        attribute([G], generated, calibrations=[])
    with refuses("networks: got 0"):
        attribute([], generated, calibrations=[])
    assert Calibration(generated=[1, 2], real=[3, 4]).threshold == pytest.approx(6**0.5)
