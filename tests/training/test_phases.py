from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from styleforge.networks import Discriminator, Generator
from styleforge.training import training_preset
from styleforge.training.draws import draw
from styleforge.training.phases import Batch, Losses, make_phases

from .tiny_runs import growing_config, tiny_config


class Scene:
    """Networks, their losses and a batch of 8, with all reports kept."""

    def __init__(self, config, lod=0.0):
        self.config = config
        self.G, self.D = Generator(config.generator), Discriminator(config.discriminator)
        self.pl_mean = torch.tensor(0.5)
        self.losses = Losses(config, self.G, self.D, self.pl_mean)
        self.phases = {phase.name: phase for phase in make_phases(config, self.losses)}
        c_dim = config.generator.c_dim
        self.batch = Batch(
            real=torch.rand(8, 3, *config.generator.size) * 2 - 1,
            c=F.one_hot(torch.arange(8) % c_dim, c_dim).float() if c_dim else None,
            draws=draw(self.G, range(8), seed=0, phase="x", lod=lod, device=torch.device("cpu"), images=True),
            lod=lod,
        )
        self.reports = {}

    def report(self, name, values):
        self.reports[name] = values.detach()

    def loss(self, name):
        return self.phases[name].loss(self.batch, self.report)

    def fake(self):
        """Images without style mixing, by the networks' public doors."""
        draws = self.batch.draws
        ws = self.G.mapping(draws.z[0], self.batch.c)
        return self.G.synthesis(ws, lod=self.batch.lod, noise=draws.noise)

    def logits(self, img):
        return self.D(img, self.batch.c, lod=self.batch.lod)


@pytest.fixture(params=[("config-e", 0, 0.0), ("config-f", 3, 0.0), ("config-d", 0, 1.25)], ids=str)
def scene(request, tmp_path):
    preset, c_dim, lod = request.param
    make = growing_config if preset == "config-d" else tiny_config
    return Scene(make(tmp_path, preset, c_dim=c_dim, style_mixing_prob=0.0), lod)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("config-a", [("Gmain", 1), ("Dboth", 1)]),
        ("config-b", [("Gmain", 1), ("Dboth", 1)]),
        ("config-c", [("Gmain", 1), ("Dmain", 1), ("Dreg", 16)]),
        ("config-d", [("Gmain", 1), ("Greg", 8), ("Dmain", 1), ("Dreg", 16)]),
        ("config-e", [("Gmain", 1), ("Greg", 8), ("Dmain", 1), ("Dreg", 16)]),
        ("config-f", [("Gmain", 1), ("Greg", 8), ("Dmain", 1), ("Dreg", 16)]),
        ("auto", [("Gmain", 1), ("Greg", 4), ("Dmain", 1), ("Dreg", 16)]),
    ],
)
def test_presets_have_the_phases_of_table_1(preset, expected):
    phases = make_phases(training_preset(preset, 16, device="cpu"), Losses.__new__(Losses))
    assert [(phase.name, phase.interval) for phase in phases] == expected
    assert [phase.network for phase in phases] == [name[0] for name, _ in expected]
    assert [phase.shrink for phase in phases if phase.name == "Greg"] == [2] * ("Greg" in dict(expected))


def test_without_gamma_there_is_no_r1(tmp_path):
    for interval in (0, 16):
        config = replace(tiny_config(tmp_path), gamma=0, r1_interval=interval)
        assert [phase.name for phase in make_phases(config, Losses.__new__(Losses))] == ["Gmain", "Greg", "Dmain"]


def test_gmain_is_the_non_saturating_loss(scene):
    torch.testing.assert_close(scene.loss("Gmain"), -F.logsigmoid(scene.logits(scene.fake()))[:, 0])


def test_dmain_tells_real_from_generated(scene):
    fake, real = scene.logits(scene.fake()), scene.logits(scene.batch.real)
    expected = -F.logsigmoid(-fake) - F.logsigmoid(real)
    torch.testing.assert_close(scene.loss("Dmain"), expected[:, 0])


def test_dmain_leaves_the_generator_alone(scene):
    scene.loss("Dmain").sum().backward()
    assert all(parameter.grad is None for parameter in scene.G.parameters())
    assert any(parameter.grad is not None for parameter in scene.D.parameters())


def test_dreg_is_half_gamma_times_the_squared_gradient(scene):
    real = scene.batch.real.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(scene.logits(real).sum(), real)
    expected = scene.config.gamma / 2 * gradient.square().flatten(1).sum(1)
    torch.testing.assert_close(scene.loss("Dreg"), expected)
    torch.testing.assert_close(scene.reports["Loss/D/reg"], expected)


def test_dboth_is_the_sum_of_both(scene):
    separate = scene.loss("Dmain") + scene.loss("Dreg")
    losses = Losses(replace(scene.config, r1_interval=0), scene.G, scene.D, scene.pl_mean)
    torch.testing.assert_close(losses.discriminator_both(scene.batch, scene.report), separate)


def test_greg_is_the_weighted_squared_distance_from_the_mean_length(scene):
    draws = scene.batch.draws
    ws = scene.G.mapping(draws.z[0], scene.batch.c).detach().requires_grad_(True)
    img = scene.G.synthesis(ws, lod=scene.batch.lod, noise=draws.noise)
    side = scene.config.generator.resolution
    (gradient,) = torch.autograd.grad((img * draws.y).sum() / side, ws)
    lengths = gradient.square().sum(2).mean(1).sqrt()
    torch.testing.assert_close(scene.loss("Greg"), 2 * (lengths - 0.5) ** 2)
    torch.testing.assert_close(scene.reports["Loss/pl_lengths"], lengths)
    scene.phases["Greg"].after()
    torch.testing.assert_close(scene.pl_mean, 0.99 * torch.tensor(0.5) + 0.01 * lengths.mean())


def test_greg_trains_mapping_and_synthesis(scene):
    scene.loss("Greg").sum().backward()
    for part in (scene.G.mapping, scene.G.synthesis):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_the_mean_of_w_follows_the_generator_s_batches(scene):
    w = scene.G.mapping.map(scene.batch.draws.z[0], scene.batch.c).detach()
    for name in ("Greg", "Dmain", "Dreg"):
        scene.loss(name)
        scene.losses._seen.clear()
    assert not scene.G.w_avg.any()
    scene.loss("Gmain")
    scene.phases["Gmain"].after()
    torch.testing.assert_close(scene.G.w_avg, 0.005 * w.mean(0))


@pytest.mark.parametrize("name", ["Gmain", "Greg"])
def test_running_means_are_those_of_the_whole_batch(scene, name):
    """Parts of unequal size count by their samples."""
    phase, whole = scene.phases[name], scene.batch
    means = []
    for parts in ([range(8)], [range(2), range(2, 8)], [[i] for i in range(8)]):
        scene.G.w_avg.zero_()
        scene.pl_mean.fill_(0.5)
        for part in parts:
            rows, draws = list(part), whole.draws
            scene.batch = Batch(
                real=whole.real[rows],
                c=None if whole.c is None else whole.c[rows],
                draws=replace(
                    draws,
                    z=draws.z[:, rows],
                    mix=draws.mix[rows],
                    crossover=draws.crossover[rows],
                    noise=[noise[rows] for noise in draws.noise],
                    y=draws.y[rows],
                ),
                lod=whole.lod,
            )
            scene.loss(name)
        phase.after()
        means.append((scene.G.w_avg.clone(), scene.pl_mean.clone()))
    for mean in means[1:]:
        torch.testing.assert_close(mean, means[0])


def test_style_mixing_takes_two_latents(tmp_path):
    """With the crossover at layer k, the first k layers take the first latent's w and the rest the second's."""
    scene = Scene(tiny_config(tmp_path, style_mixing_prob=1.0))
    draws = scene.batch.draws
    w, other = (scene.G.mapping.map(z) for z in draws.z)
    layers = 1 + (draws.crossover * (scene.G.num_ws - 1)).floor()
    ws = torch.stack([torch.where(layer < layers[:, None], w, other) for layer in range(scene.G.num_ws)], dim=1)
    expected = F.softplus(-scene.D(scene.G.synthesis(ws, noise=draws.noise)))[:, 0]
    torch.testing.assert_close(scene.loss("Gmain"), expected)


def test_reports_have_the_field_s_names(scene):
    names = {
        "Gmain": {"Loss/scores/fake", "Loss/signs/fake", "Loss/G/loss"},
        "Greg": {"Loss/pl_penalty", "Loss/pl_lengths", "Loss/G/reg"},
        "Dmain": {"Loss/scores/fake", "Loss/signs/fake", "Loss/scores/real", "Loss/signs/real", "Loss/D/loss"},
        "Dreg": {"Loss/r1_penalty", "Loss/D/reg"},
    }
    for name, expected in names.items():
        scene.reports.clear()
        scene.loss(name)
        assert set(scene.reports) == expected
        assert all(values.numel() == 8 for values in scene.reports.values())


def test_path_lengths_need_no_mapping_network(tmp_path):
    """Without mapping layers w is the normalised z, which has no gradient of its own."""
    config = tiny_config(tmp_path, style_mixing_prob=0.5)
    scene = Scene(replace(config, generator=replace(config.generator, mapping_layers=0)))
    scene.loss("Greg").sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in scene.G.synthesis.parameters())
