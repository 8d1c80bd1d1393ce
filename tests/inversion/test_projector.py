import dataclasses

import pytest
import torch
from tiny_generators import CASES, tiny_generator

from styleforge import images
from styleforge.inversion import ProjectionConfig, default_pass, project
from styleforge.latents import GaussianLatents, generate_images, generate_ws, sample_w
from styleforge.networks import Discriminator, DiscriminatorConfig

FEW = ProjectionConfig(num_steps=8, num_samples=500)


@pytest.fixture
def targets(generated, foreign):
    return torch.cat([generated, foreign[:3]])


# What a target finds is its own


@pytest.mark.parametrize(
    "arguments", [{}, {"space": "w+", "prior": "gaussian"}, {"config": dataclasses.replace(FEW, restarts=1)}]
)
def test_a_batch_of_8_gives_each_target_what_it_gets_alone(G, pixels, gaussian, targets, arguments):
    arguments = {"distance": pixels, "num_steps": 20, **arguments}
    if "prior" in arguments:
        arguments["prior"] = gaussian
    together = project(G, targets, **arguments)
    for i in (2, 7):
        alone = project(G, targets[i : i + 1], **arguments)
        torch.testing.assert_close(alone.distances, together.distances[i : i + 1], rtol=1e-4, atol=0)
        torch.testing.assert_close(alone.ws, together.ws[i : i + 1], rtol=1e-4, atol=1e-5)


def test_batches_change_rounding_errors_alone(G, pixels, targets):
    reference = project(G, targets[:3], distance=pixels, config=FEW, batch=3)
    for batch in (1, 2):
        found = project(G, targets[:3], distance=pixels, config=FEW, batch=batch)
        torch.testing.assert_close(found.ws, reference.ws, rtol=1e-3, atol=1e-3)


def test_the_same_seed_finds_the_same(G, pixels, generated):
    first, second, other = (project(G, generated, distance=pixels, config=FEW, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.ws, second.ws) and torch.equal(first.noise[1], second.noise[1])
    assert not torch.equal(first.ws, other.ws)


# What is found


def test_generated_pictures_are_found_again_and_others_are_not(G, pixels, generated, foreign):
    arguments = {"distance": pixels, "num_steps": 120, "optimize_noise": False, "batch": 10}
    found = project(G, torch.cat([generated, foreign]), **arguments)
    assert found.distances[:5].max() < 0.5 * found.distances[5:].min()
    before = pixels(images.from_uint8(generated), images.from_uint8(generated.roll(1, 0)))
    assert found.distances[:5].max() < 0.2 * before.mean()


def test_the_pictures_are_those_of_the_latents(G, pixels, generated):
    for space in ("w", "w+"):
        found = project(G, generated, space=space, distance=pixels, config=FEW, optimize_noise=space == "w")
        pictures = images.to_uint8(G.synthesis(found.ws, noise_mode="const", noise=found.noise))
        assert (pictures.int() - found.images.int()).abs().max() <= 1
        expected = pixels(images.from_uint8(found.images), images.from_uint8(generated))
        torch.testing.assert_close(found.distances, expected)


def test_w_is_one_for_all_layers_and_w_plus_one_for_each(G, pixels, generated):
    w, w_plus = (project(G, generated, space=space, distance=pixels, config=FEW) for space in ("w", "w+"))
    assert w.ws.shape == w_plus.ws.shape == (5, G.num_ws, G.w_dim)
    assert torch.equal(w.ws, w.ws[:, :1].expand_as(w.ws))
    assert (w_plus.ws.std(1) > 0).any(1).all()


def test_published_defaults_search_noise_in_w_alone(G, pixels, generated):
    w, w_plus = (project(G, generated, space=space, distance=pixels, num_steps=2) for space in ("w", "w+"))
    assert w_plus.noise is None
    assert [maps.shape[2:] for maps in w.noise] == [n.const.shape for n in G.synthesis.noise_inputs()]
    for maps in w.noise:
        torch.testing.assert_close(maps.mean([1, 2, 3]), torch.zeros(5), atol=1e-5, rtol=0)
        torch.testing.assert_close(maps.square().mean([1, 2, 3]), torch.ones(5), atol=1e-4, rtol=0)


def test_noise_regularisation_keeps_signal_out_of_the_maps(G, pixels, foreign):
    kept, free = (
        project(G, foreign, distance=pixels, num_steps=30, config=dataclasses.replace(FEW, noise_weight=weight))
        for weight in (1e5, 0)
    )
    assert kept.history["noise"][-1].max() < 0.1 * free.history["noise"][-1].min()


def test_the_loss_is_the_sum_of_its_weighted_terms(G, pixels, gaussian, generated):
    found = project(G, generated, distance=pixels, config=FEW, prior=gaussian)
    history = found.history
    total = history["distance"] + 1e5 * history["noise"] + 1e-4 * history["energy"]
    torch.testing.assert_close(history["loss"], total)
    assert history["loss"].shape == (8, 5)
    torch.testing.assert_close(found.energies, gaussian.energy(found.ws[:, 0]))
    torch.testing.assert_close(found.objectives(), found.distances + 1e-4 * found.energies)


def test_the_prior_lowers_the_energy(G, pixels, gaussian, foreign):
    free, prior = (
        project(G, foreign, space="w+", distance=pixels, num_steps=60, prior=prior, batch=5)
        for prior in (None, gaussian)
    )
    assert (gaussian.energy(prior.ws) < 0.5 * gaussian.energy(free.ws)).all()
    assert prior.distances.mean() > free.distances.mean()


# Where a search begins: the first step has a learning rate of 0


def test_a_search_begins_at_the_mean_w_and_with_a_prior_at_the_mean_v(G, pixels, gaussian, generated):
    w = torch.cat(list(sample_w(G, 10_000)))
    start = project(G, generated, distance=pixels, num_steps=1)
    torch.testing.assert_close(start.ws[:, 0], w.mean(0).expand(5, -1), rtol=1e-4, atol=1e-5)
    start = project(G, generated, distance=pixels, num_steps=1, prior=gaussian)
    expected = gaussian.v_to_w(gaussian.w_to_v(w.double()).mean(0)).float()
    torch.testing.assert_close(start.ws[:, 0], expected.expand(5, -1))
    assert (gaussian.energy(start.ws[:, 0]) < 0.1).all()


def test_a_class_begins_at_its_own_mean(pixels):
    G = tiny_generator("conditional")
    pictures = torch.cat([part for *_, part in generate_images(G, range(3), c=torch.eye(3))])
    for c in (torch.eye(3), torch.eye(3)[1]):
        start = project(G, pictures, distance=pixels, num_steps=1, c=c)
        for i in range(3):
            label = c[i] if c.ndim == 2 else c
            mean = torch.cat(list(sample_w(G, 10_000, c=label))).mean(0)
            torch.testing.assert_close(start.ws[i, 0], mean, rtol=1e-4, atol=1e-5)


# Speed-ups


def test_whitening_reaches_a_lower_loss_in_as_many_steps(pixels):
    G = tiny_generator()
    G.mapping.get_submodule("fc1").weight.mul_(torch.logspace(0, -3, 8)[:, None])  # as uneven as trained ones
    gaussian = GaussianLatents.fit(G, 5000)
    (targets,) = (part for *_, part in generate_images(G, range(5)))
    losses = []
    for whiten in (True, False):
        config = ProjectionConfig(num_steps=40, num_samples=500, optimize_noise=False, whiten=whiten)
        found = project(G, targets, distance=pixels, prior=gaussian, config=config, batch=5)
        torch.testing.assert_close(found.energies, gaussian.energy(found.ws[:, 0]), rtol=1e-3, atol=1e-3)
        losses.append(found.history["loss"][-1].mean().item())
    assert losses[0] < 0.5 * losses[1]


def test_restarts_keep_the_best(G, pixels, foreign):
    once = project(G, foreign, distance=pixels, config=FEW)
    again = project(G, foreign, distance=pixels, config=dataclasses.replace(FEW, restarts=1))
    assert (again.distances <= once.distances).all() and (again.distances < once.distances).any()
    limit = once.distances.median().item()
    some = project(G, foreign, distance=pixels, config=dataclasses.replace(FEW, restarts=1, restart_above=limit))
    fine = once.distances <= limit
    assert torch.equal(some.ws, torch.where(fine[:, None, None], once.ws, again.ws))


def test_a_plateau_ends_a_search_early_and_keeps_the_answer(G, pixels, generated):
    config = ProjectionConfig(num_steps=60, num_samples=500, optimize_noise=False)
    whole = project(G, generated[:4], distance=pixels, config=config)
    config = dataclasses.replace(config, plateau=0.5, plateau_steps=3)
    stopped = project(G, generated[:4], distance=pixels, config=config)
    steps = stopped.history["loss"].isfinite().sum(0)
    assert (steps >= config.first_late_step).all() and (steps < 60).all()
    assert whole.history["loss"].isfinite().all()
    torch.testing.assert_close(stopped.distances, whole.distances, rtol=0.3, atol=1e-4)


def test_a_stopped_target_is_not_moved_by_the_others(G, pixels, generated, foreign):
    config = ProjectionConfig(num_steps=40, num_samples=500, plateau=0.05, plateau_steps=1)
    pair = torch.cat([generated[:1], foreign[:1]])
    together = project(G, pair, distance=pixels, config=config)
    for i in range(2):
        assert torch.equal(together.ws[i], project(G, pair[i : i + 1], distance=pixels, config=config).ws[0])


# What is told on the way


def test_progress_and_passes_are_told(G, pixels, targets):
    steps, passes = [], []
    project(
        G,
        targets[:6],
        distance=pixels,
        config=FEW,
        batch=4,
        progress=lambda *call: steps.append(call),
        on_pass=lambda first, part: passes.append((first, len(part))),
    )
    assert steps[0] == (1, 16) and steps[-1] == (16, 16)
    assert steps == sorted(steps)
    assert passes == [(0, 4), (4, 2)]


def test_frames_show_the_way(G, pixels, generated):
    found = project(G, generated, distance=pixels, config=FEW, num_frames=5)
    assert found.frames.shape == (6, 5, 3, 16, 16)
    assert torch.equal(found.frames[-1], found.images)
    assert not torch.equal(found.frames[0], found.images)
    assert project(G, generated[:1], distance=pixels, config=FEW, num_frames=99).frames.shape[0] == 9


@pytest.mark.parametrize("kind", CASES)
def test_every_kind_of_network_can_be_inverted(pixels, kind):
    G = tiny_generator(kind)
    c = torch.eye(G.c_dim)[:1] if G.c_dim else None
    (picture,) = (part for *_, part in generate_images(G, [3], c=c))
    found = project(G, picture, distance=pixels, num_steps=12, batch=1)
    assert found.distances[0] < found.history["distance"][0, 0]
    assert found.images.shape == picture.shape


def test_small_pictures_go_together_and_large_ones_alone():
    assert default_pass(tiny_generator()) == 4


# Refusals


def test_targets_of_another_kind_are_refused(G, pixels, generated, refuses):
    for wrong, parts in (
        (generated[:, :1], ("targets: got shape [5, 1, 16, 16]", "[any, 3, 16, 16]")),
        (generated[:, :, :8], ("[5, 3, 8, 16]",)),
        (generated.float(), ("torch.float32", "torch.uint8")),
        (generated[:0], ("targets: got none",)),
    ):
        with refuses(*parts):
            project(G, wrong, distance=pixels)


def test_a_prior_of_another_network_is_refused(G, pixels, generated, refuses):
    other = tiny_generator()
    other.mapping.get_submodule("fc0").bias[0] += 1
    with refuses("prior", "another network"):
        project(G, generated, distance=pixels, prior=GaussianLatents.fit(other, 1000))
    with refuses("prior: got 'laplace'", "--prior"):
        project(G, generated, distance=pixels, prior="laplace")
    with refuses("num_samples: got 5", "more than the 8 dimensions"):
        GaussianLatents.fit(G, 5)


def test_what_does_not_fit_is_refused(G, pixels, generated, refuses):
    with refuses("space: got 'z'"):
        project(G, generated, space="z", distance=pixels)
    with refuses("without a discriminator"):
        project(G, generated, distance="pixel+discriminator")
    with refuses("num_steps: got 0", "--num-steps"):
        project(G, generated, distance=pixels, num_steps=0)
    with refuses("unconditional"):
        project(G, generated, distance=pixels, c=torch.eye(3)[0])


def test_a_broken_network_is_one_sentence(pixels, generated):
    G = tiny_generator()
    G.synthesis.noise_inputs()[0].const.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="got numbers that are not finite, expected pictures"):
        project(G, generated, distance=pixels, num_steps=2, optimize_noise=False)


def test_the_discriminators_distance_finds_pictures_too(G, generated):
    D = Discriminator(DiscriminatorConfig(resolution=16, channel_max=4, channel_base=64)).eval()
    found = project(G, generated[:2], distance="pixel+discriminator", D=D, num_steps=30, batch=2)
    assert found.settings["distance"] == "pixel+discriminator" and len(found.settings["distance_checksum"]) == 64
    assert (found.distances < 0.7 * found.history["distance"][0]).all()


def test_the_true_latents_of_a_generated_picture_come_nearer(G, pixels, gaussian, generated):
    true = generate_ws(G, range(5))
    found = project(G, generated, distance=pixels, num_steps=100, optimize_noise=False, prior=gaussian, batch=5)
    start = project(G, generated, distance=pixels, num_steps=1, prior=gaussian)
    errors, before = ((one.ws - true)[:, 0].norm(dim=1) for one in (found, start))
    assert errors.mean() < 0.7 * before.mean()
