import numpy as np
import pytest
import torch
from tiny_generators import tiny_generator

from styleforge import images
from styleforge.inversion.evaluation import (
    NUM_TIMES,
    Condition,
    Inversion,
    Targets,
    conditions,
    contact_sheet,
    generated_targets,
    interpolate,
    interpolation_errors,
    invert,
    latent_error,
    pairs,
    search_config,
    summarize,
)


def test_conditions_match_data_and_model():
    every = conditions([1e-4, 0])
    assert len(every) == len(set(every)) == 12
    assert Condition("w", None, "G") in every and Condition("w+", 0, "G+") in every
    assert {(one.space, one.kind) for one in every} == {("w", "R"), ("w", "G"), ("w+", "R"), ("w+", "G+")}
    assert [Condition("w+", weight, "R").method for weight in (None, 1e-4)] == ["W+", "W+ + prior 0.0001"]


@pytest.mark.parametrize("kind", ["square", "conditional"])
def test_generated_targets_are_the_pictures_of_their_latents(kind):
    G = tiny_generator(kind)
    for which in ("G", "G+"):
        targets = generated_targets(G, which, 3, seed=0)
        expected = images.to_uint8(G.synthesis(targets.ws, noise_mode="const"))
        assert (targets.images.int() - expected.int()).abs().max() <= 1
        spread = targets.ws.std(1).max()
        assert spread == 0 if which == "G" else spread > 0
        assert torch.equal(targets.ws, generated_targets(G, which, 3, seed=0).ws)
        assert not torch.equal(targets.ws, generated_targets(G, which, 3, seed=1).ws)


def test_an_inversion_is_a_projection_with_fixed_noise(G, pixels, gaussian, generated):
    condition = Condition("w+", 1e-3, "R")
    config = search_config(condition, num_steps=4)
    found = invert(G, generated, condition, gaussian=gaussian, distance=pixels, config=config, batch=5)
    pictures = images.from_uint8(images.to_uint8(G.synthesis(found.ws, noise_mode="const")))
    torch.testing.assert_close(found.distances, pixels(pictures, images.from_uint8(generated)), rtol=1e-3, atol=1e-4)


def test_searches_have_published_schedules_fixed_noise_and_their_own_lambda():
    none, control, prior = (search_config(Condition("w+", weight, "R")) for weight in (None, 0, 1e-3))
    assert (prior.num_steps, prior.learning_rate, prior.prior_weight, prior.whiten) == (10_000, 0.05, 1e-3, True)
    assert (control.prior_weight, control.whiten, none.whiten) == (0, True, False)
    assert not any(config.optimize_noise for config in (none, control, prior))
    assert search_config(Condition("w", None, "G"), num_steps=7).num_steps == 7
    assert not search_config(Condition("w", 1e-4, "G"), whiten=False).whiten


def test_the_control_begins_where_the_prior_begins(G, pixels, gaussian, generated):
    ways = [Condition("w", weight, "G") for weight in (None, 0, 1e-4)]
    none, control, prior = (
        invert(
            G,
            generated,
            way,
            gaussian=gaussian,
            distance=pixels,
            config=search_config(way, num_steps=1),
            batch=5,
        )
        for way in ways
    )
    assert torch.equal(control.ws, prior.ws)
    assert not torch.equal(control.ws, none.ws)


def test_the_latent_error_is_an_l2_distance():
    ws, true = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    assert latent_error(ws, true, "w").tolist() == [2, 2]
    assert latent_error(ws, true, "w+").tolist() == pytest.approx([12**0.5] * 2)


def test_pairs_are_drawn_once_each():
    drawn = pairs(5, 80, seed=0)
    assert {tuple(pair) for pair in drawn.tolist()} == {(i, j) for j in range(5) for i in range(j)}
    assert len(drawn) == 10
    assert torch.equal(pairs(20, 8, seed=1), pairs(20, 8, seed=1)) and len(pairs(20, 8, seed=1)) == 8


def test_interpolation_is_linear():
    ws = torch.randn(3, 2, 4)
    between = torch.tensor([[0, 2]])
    torch.testing.assert_close(interpolate(ws, between, 0.25)[0], 0.75 * ws[0] + 0.25 * ws[2])


def test_the_true_latents_make_no_error_and_others_do(G, pixels):
    targets, between = generated_targets(G, "G+", 4, seed=0), pairs(4, 6, seed=0)
    same = Inversion(ws=targets.ws, distances=torch.zeros(4))
    assert interpolation_errors(G, same, targets.ws, "w+", between, pixels) == ([0] * NUM_TIMES, [0] * NUM_TIMES)
    shifted = Inversion(ws=targets.ws + 0.5, distances=torch.zeros(4))
    image, latent = interpolation_errors(G, shifted, targets.ws, "w+", between, pixels)
    assert latent == pytest.approx([0.5 * (G.num_ws * G.w_dim) ** 0.5] * NUM_TIMES)
    ends = [torch.lerp(targets.ws[i], targets.ws[j], 0.5) for i, j in between.tolist()]
    wanted, found = (G.synthesis(torch.stack(ends) + shift, noise_mode="const") for shift in (0, 0.5))
    assert image[NUM_TIMES // 2] == pytest.approx(pixels(wanted, found).mean().item(), rel=1e-4)


def test_the_summary_has_the_numbers_of_the_tables(G, pixels, gaussian, foreign):
    targets = {
        "R": Targets(foreign, None),
        **{kind: generated_targets(G, kind, 5, seed=0) for kind in ("G", "G+")},
    }
    inversions = {
        one: Inversion(ws=targets["G+" if one.space == "w+" else "G"].ws + 0.1, distances=torch.arange(5.0))
        for one in conditions([1e-4])
    }
    rows = summarize(G, targets, inversions, gaussian=gaussian, distance=pixels, num_pairs=3)
    assert len(rows) == 8
    for row in rows:
        assert row["image_error"] == 2
        assert ("latent_error_sigmas" in row) == ("latent_error" in row)
        assert ("latent_error" in row) == ("interpolation_image_error" in row) == (row["kind"] != "R")
        assert np.isfinite(row["energy_per_layer"])
    errors = {row["kind"]: row["latent_error"] for row in rows if row["kind"] != "R"}
    assert errors["G+"] == pytest.approx(errors["G"] * G.num_ws**0.5, rel=1e-4)


def test_the_sheet_has_targets_at_the_ends(G, foreign):
    ws = generated_targets(G, "G+", 4, seed=0).ws
    generated = Targets(foreign[:4], ws)
    sheet = contact_sheet(G, generated, [ws + 1, ws + 2], num_pairs=2, columns=3)
    assert sheet.shape == (3, 2 * 3 * 16, 5 * 16)  # a row of the true ws comes first
    assert torch.equal(sheet[:, :16, :16], foreign[0]) and torch.equal(sheet[:, -16:, -16:], foreign[3])
    start = images.to_uint8(G.synthesis(ws[:1], noise_mode="const"))[0]
    assert (sheet[:, :16, 16:32].int() - start.int()).abs().max() <= 1
    real = contact_sheet(G, Targets(foreign, None), [ws], num_pairs=1, columns=3)
    assert real.shape == (3, 16, 80)


def test_an_inversion_comes_back_from_its_file(tmp_path, refuses):
    found = Inversion(ws=torch.randn(2, 3, 4), distances=torch.rand(2))
    found.save(tmp_path / "x.npz")
    again = Inversion.load(tmp_path / "x.npz")
    assert torch.equal(again.ws, found.ws) and torch.equal(again.distances, found.distances)
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-40])
    with refuses("x.npz: got no inversion"):
        Inversion.load(tmp_path / "x.npz")
    with pytest.raises(FileNotFoundError):
        Inversion.load(tmp_path / "none.npz")
