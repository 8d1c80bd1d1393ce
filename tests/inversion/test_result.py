import json
import math

import numpy as np
import pytest
import torch

from styleforge import images
from styleforge.inversion import Projection, ProjectionConfig, measures, project, save
from styleforge.inversion.similarity import psnr, ssim
from styleforge.latents import load_projections, synthesize
from styleforge.latents.gaussian import mapping_sha256

FEW = ProjectionConfig(num_steps=6, num_samples=500)


@pytest.fixture(scope="module")
def found(G, pixels, generated):
    return project(G, generated, distance=pixels, config=FEW, num_frames=2, batch=5)


def test_files_hold_what_was_found_without_pickled_objects(G, found, generated, tmp_path):
    save(found, generated, 2, tmp_path / "x", facts={"network": "tiny"})
    names = {path.name for path in (tmp_path / "x").iterdir()}
    assert names == {"target.png", "projection.png", "projection.npz", "losses.jsonl"}
    with np.load(tmp_path / "x/projection.npz", allow_pickle=False) as archive:
        settings = json.loads(str(archive["settings"]))
        assert np.array_equal(archive["w"], found.ws[2:3])
        assert len([name for name in archive if name.startswith("noise")]) == len(found.noise)
    assert settings["network"] == "tiny" and settings["space"] == "w" and settings["distance"] == "pixels"
    assert settings["mapping_sha256"] == mapping_sha256(G)
    assert settings["config"]["num_steps"] == 6 and len(settings["distance_checksum"]) == 64

    ws, noise = load_projections(str(tmp_path / "x/projection.npz"), G)
    (again,) = synthesize(G, ws, noise=noise)
    assert (again[0].int() - found.images[2].int()).abs().max() <= 1


def test_losses_are_one_line_a_step(found, generated, tmp_path):
    found.history["loss"][4:, 1] = torch.nan  # as after an early stop
    save(found, generated, 1, tmp_path)
    save(found, generated, 0, tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert set(lines[0]) == {"step", "loss", "distance", "noise"}
    assert len((tmp_path / "whole/losses.jsonl").read_text().splitlines()) == 6


def test_measures_are_those_of_the_pictures(found, generated):
    numbers = measures(found, generated, 3)
    pair = found.images[3:4], generated[3:4]
    assert numbers == {
        "distance": pytest.approx(found.distances[3].item()),
        "psnr": pytest.approx(psnr(*pair).item()),
        "ssim": pytest.approx(ssim(*pair).item()),
    }
    assert measures(found, found.images, 3)["psnr"] is None  # infinity is no JSON


def made_up(distance, energy):
    """One result in which every number is the distance."""
    one = torch.full((1,), float(distance))
    return Projection(
        ws=one.reshape(1, 1, 1).repeat(1, 2, 3),
        noise=[one.reshape(1, 1, 1, 1).clone()],
        images=one.reshape(1, 1, 1, 1).to(torch.uint8),
        distances=one.clone(),
        energies=torch.tensor([float(energy)]),
        history={"loss": one.reshape(1, 1).clone()},
        settings={"config": {"prior_weight": 0.1}},
    )


def test_parts_are_joined_in_order():
    joined = Projection.join([made_up(1, 0), made_up(2, 0), made_up(3, 0)])
    assert len(joined) == 3
    assert joined.distances.tolist() == joined.ws[:, 1, 2].tolist() == [1, 2, 3]
    assert joined.noise[0].flatten().tolist() == joined.history["loss"][0].tolist() == [1, 2, 3]
    assert joined.frames is None


def test_the_better_attempt_has_the_lower_sum_of_distance_and_energy():
    joined = Projection.join([made_up(1, 0), made_up(2, 30), made_up(3, 0)])
    joined.take_better([0, 1, 2], Projection.join([made_up(4, 0), made_up(5, -9), made_up(6, math.nan)]))
    assert joined.distances.tolist() == joined.ws[:, 0, 0].tolist() == [1, 5, 3]
    assert joined.energies.tolist() == [0, -9, 0]
    assert joined.noise[0].flatten().tolist() == joined.images.flatten().tolist() == [1, 5, 3]


def test_a_folder_that_cannot_be_made_is_one_sentence(found, generated, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="could not be written"):
        save(found, generated, 0, tmp_path / "file" / "x")


def test_pictures_are_saved_to_the_pixel(found, generated, tmp_path):
    from PIL import Image

    save(found, generated, 4, tmp_path)
    for name, expected in (("target", generated[4]), ("projection", found.images[4])):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.array_equal(np.asarray(picture), np.asarray(images.to_pil(expected)))
