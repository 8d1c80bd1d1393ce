import math
from dataclasses import replace

import pytest
import torch

from styleforge import checkpoint
from styleforge.checkpoint import Checkpoint
from styleforge.training import training_preset
from styleforge.training.state import TrainState, compute_dtype, first_not_finite

from .tiny_runs import assert_same_snapshot, growing_config, tiny_config

CPU = torch.device("cpu")


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path)


def trained(config, steps=2):
    """A state whose every part has moved."""
    state = TrainState(config, CPU)
    for _ in range(steps):
        for name in ("G", "D"):
            for parameter in state.network(name).parameters():
                parameter.grad = torch.randn_like(parameter)
            state.optimizers[name].step()
    state.G.mapping.w_avg.normal_()
    state.update_ema(0.5)
    state.pl_mean.fill_(0.25)
    state.collector.report("Loss/G/loss", torch.randn(5))
    state.counters.cur_nimg, state.counters.batch_idx, state.counters.train_sec = 16, 2, 1.5
    return state


def test_the_seed_decides_the_weights(config):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = TrainState(config, CPU).G.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = TrainState(config, CPU).G.state_dict()
    other = TrainState(replace(config, seed=1), CPU).G.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["synthesis.b4.conv1.weight"], other["synthesis.b4.conv1.weight"])


def test_the_average_starts_as_the_generator(config):
    state = TrainState(config, CPU)
    for mine, theirs in zip(state.G_ema.parameters(), state.G.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine.data_ptr() != theirs.data_ptr()
        assert not mine.requires_grad
    assert not state.G_ema.training


@pytest.mark.parametrize(
    ("preset", "g_correction", "d_correction"),
    [("config-a", 1, 1), ("config-c", 1, 16 / 17), ("config-d", 8 / 9, 16 / 17), ("config-f", 8 / 9, 16 / 17)],
)
def test_optimizers_have_the_lazy_correction_of_appendix_b(tmp_path, preset, g_correction, d_correction):
    config = tiny_config(tmp_path, preset, pl_interval=8, betas=(0.5, 0.99))
    config = replace(config, r1_interval=training_preset(preset, 16).r1_interval)
    state = TrainState(config, CPU)
    for lr in (None, 0.01):  # as made, and after the schedule has spoken
        if lr is not None:
            state.set_learning_rates(lr, 2 * lr)
        rates = (config.g_lr, config.d_lr) if lr is None else (lr, 2 * lr)
        for name, c, rate in zip("GD", (g_correction, d_correction), rates, strict=True):
            (group,) = state.optimizers[name].param_groups
            assert group["lr"] == pytest.approx(rate * c)
            assert group["betas"] == pytest.approx((0.5**c, 0.99**c))
            assert group["eps"] == 1e-8
            assert not group["weight_decay"] and not group["amsgrad"]


def test_without_a_regulariser_nothing_is_corrected(config):
    state = TrainState(replace(config, gamma=0, pl_weight=0), CPU)
    assert (state.lazy_correction("G"), state.lazy_correction("D")) == (1, 1)


def test_a_step_of_the_optimizer_is_adam_s(config):
    """Without momentum, two steps of one weight by hand."""
    state = TrainState(replace(config, gamma=0, pl_weight=0), CPU)
    parameter = next(state.G.parameters())
    w, v, beta2 = parameter.detach().double().clone(), 0.0, 0.99
    for t, scale in enumerate((0.5, -2.0), 1):
        g = torch.full_like(w, scale)
        parameter.grad = g.float()
        state.optimizers["G"].step()
        v = beta2 * v + (1 - beta2) * g * g
        w = w - 0.002 * g / ((v / (1 - beta2**t)).sqrt() + 1e-8)
    torch.testing.assert_close(parameter.detach().double(), w, atol=1e-6, rtol=1e-6)


def test_the_average_moves_by_its_decay_and_takes_buffers_over(config):
    state = TrainState(config, CPU)
    before = [parameter.clone() for parameter in state.G_ema.parameters()]
    for parameter in state.G.parameters():
        parameter.data += 1
    state.G.mapping.w_avg.fill_(3)
    state.update_ema(0.75)
    for old, new in zip(before, state.G_ema.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)
    assert (state.G_ema.w_avg == 3).all()
    for name, buffer in state.G.named_buffers():
        assert torch.equal(state.G_ema.get_buffer(name), buffer)


@pytest.mark.parametrize("preset", ["config-a", "config-e"])
def test_a_state_comes_back_whole(tmp_path, preset):
    config = tiny_config(tmp_path, preset)
    state = trained(config)
    state.save(tmp_path / "a.safetensors")
    other = TrainState(replace(config, seed=5), CPU)
    other.restore(checkpoint.load(tmp_path / "a.safetensors"))
    other.config = config
    other.save(tmp_path / "b.safetensors")
    assert_same_snapshot(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert other.counters == state.counters
    for mine, theirs in zip(other.G.parameters(), state.G.parameters(), strict=True):
        assert mine.stride() == theirs.stride()
        moments, expected = other.optimizers["G"].state[mine], state.optimizers["G"].state[theirs]
        assert moments.keys() == expected.keys()
        for key, value in moments.items():
            assert value.stride() == expected[key].stride()


def test_restoring_forgets_what_the_optimizer_had(config, tmp_path):
    fresh = TrainState(config, CPU)
    fresh.save(tmp_path / "a.safetensors")
    state = trained(config)
    state.restore(checkpoint.load(tmp_path / "a.safetensors"))
    assert not state.optimizers["G"].state
    assert not state.collector.moments
    assert state.counters == fresh.counters


def test_resolutions_that_have_not_been_trained_have_no_optimizer_state(tmp_path):
    state = TrainState(growing_config(tmp_path), CPU)
    state.G.synthesis(state.G.mapping(torch.randn(2, 8)), lod=2.0).sum().backward()
    state.optimizers["G"].step()
    state.save(tmp_path / "a.safetensors")
    names = checkpoint.load(tmp_path / "a.safetensors").training
    assert any(name.startswith("optimizer.G.synthesis.b8.") for name in names)
    assert not any(name.startswith("optimizer.G.synthesis.b32.") for name in names)


def test_resetting_forgets_the_history(config):
    state = trained(config)
    state.reset_optimizers()
    assert not state.optimizers["G"].state
    assert not state.optimizers["D"].state


def test_a_checkpoint_without_training_state_is_refused(config, refuses):
    state = TrainState(config, CPU)
    for source in (Checkpoint(), Checkpoint(G=state.G, G_ema=state.G_ema, D=state.D), Checkpoint(G_ema=state.G_ema)):
        with refuses("--init-from"):
            state.restore(source)


def test_other_networks_are_refused(config, tmp_path, refuses):
    trained(config).save(tmp_path / "a.safetensors")
    other = TrainState(tiny_config(tmp_path, size=32), CPU)
    with refuses("other networks", "--init-from"):
        other.restore(checkpoint.load(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("network", ["G", "D"])
def test_the_first_broken_weight_is_named(config, value, network):
    state = TrainState(config, CPU)
    assert state.first_broken() is None
    name, parameter = list(state.network(network).named_parameters())[-1]
    parameter.data.view(-1)[-1] = value
    assert state.first_broken() == f"{network}.{name}"


def test_a_broken_optimizer_is_named(config):
    """A gradient of 1e30 overflows Adam's mean square: that weight would silently stand still for ever."""
    state = trained(config)
    name, parameter = next(state.D.named_parameters())
    parameter.grad = torch.full_like(parameter, 1e30)
    state.optimizers["D"].step()
    assert torch.isfinite(parameter).all()
    assert state.first_broken() == f"the gradient of D.{name}"


def test_the_first_broken_statistic_is_named():
    finite = {"num": 1, "mean": 1.0, "std": 0.0}
    assert first_not_finite({"a": finite, "b": finite}) is None
    assert first_not_finite({"a": finite, "b": finite | {"mean": math.nan}}) == "b"
    assert first_not_finite({"b": finite | {"mean": math.inf}}) == "b"


def test_the_float_type_follows_precision_and_device(config, refuses):
    cuda = torch.device("cuda")
    assert compute_dtype(config, CPU) is None
    assert compute_dtype(replace(config, precision="fp32"), cuda) is None
    assert compute_dtype(replace(config, precision="bf16"), CPU) == torch.bfloat16
    assert compute_dtype(replace(config, precision="fp16"), cuda) == torch.float16
    with refuses("precision", "fp16 on cpu", "--precision"):
        compute_dtype(replace(config, precision="fp16"), CPU)


def test_auto_does_not_take_a_float_type_that_the_gpu_only_emulates(config, monkeypatch):
    def is_supported(including_emulation=True):
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert compute_dtype(config, torch.device("cuda")) is None


def test_bf16_trains_on_processors(config):
    state = TrainState(replace(config, precision="bf16"), CPU)
    img = state.G.synthesis(state.G.mapping(torch.randn(2, 8)))
    assert img.dtype == torch.float32
    state.D(img).sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in state.G.parameters())
