"""Networks run by kernels are the networks run by PyTorch, with first and second derivatives."""

import importlib

import pytest
import torch
from tiny_generators import tiny_generator

from styleforge.analysis.jacobian import push
from styleforge.losses import path_lengths, r1_penalty
from styleforge.networks import Discriminator, DiscriminatorConfig
from styleforge.ops import kernels


def gradients(loss, network):
    parameters = [p for p in network.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [g for g in found if g is not None]


def everything():
    """Images, logits, R1 with its gradient, path lengths with theirs, of tiny networks."""
    G = tiny_generator().double().requires_grad_(True)
    D = Discriminator(DiscriminatorConfig(resolution=16, channel_base=64, channel_max=4))
    D = D.double()
    ws = G.mapping(torch.randn(2, 8, dtype=torch.float64))
    img = G.synthesis(ws, noise_mode="const")
    penalty, logits = r1_penalty(D, img.detach())
    lengths = path_lengths(lambda ws: G.synthesis(ws, noise_mode="const"), ws, torch.randn_like(img))
    return [
        img,
        logits,
        penalty,
        lengths,
        *gradients(penalty.sum() + logits.sum(), D),
        *gradients(lengths.sum() + D(img).sum(), G),
    ]


@pytest.mark.slow
def test_networks_by_kernels_are_networks_by_pytorch(load_kernels, monkeypatch):
    used = set()

    def counted(name):
        def uses_triton(x, impl):
            used.add(name)
            return True

        return uses_triton

    torch.manual_seed(0)
    expected = everything()
    for name, op in (("bias_act", "bias_act"), ("upfirdn2d", "upfirdn2d"), ("minibatch_stddev", "normalization")):
        load_kernels(name)
        monkeypatch.setattr(importlib.import_module(f"styleforge.ops.{op}"), "uses_triton", counted(name))
    torch.manual_seed(0)
    for ours, theirs in zip(everything(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert used == {"bias_act", "upfirdn2d", "minibatch_stddev"}


def test_derivatives_in_forward_mode_do_not_get_lost_where_kernels_run(load_kernels, monkeypatch):
    G = tiny_generator().double()
    w, direction = torch.randn(2, 8, dtype=torch.float64), torch.randn(2, 8, dtype=torch.float64)
    expected = push(G, w, direction)
    assert expected.norm() > 0.01
    for name, op in (("bias_act", "bias_act"), ("upfirdn2d", "upfirdn2d"), ("minibatch_stddev", "normalization")):
        load_kernels(name)
        monkeypatch.setattr(
            importlib.import_module(f"styleforge.ops.{op}"), "uses_triton", lambda x, impl: impl != "torch"
        )
    torch.testing.assert_close(push(G, w, direction), expected, rtol=1e-9, atol=1e-9)


class OnCuda:
    """What `uses_triton` asks of a tensor."""

    is_cuda = True
    device = torch.device("cuda", 0)


@pytest.fixture
def fresh():
    """No GPU has been tried yet."""
    kernels._run_on.cache_clear()
    yield
    kernels._run_on.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_without_triton_pytorch_runs_and_says_so_once(monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda package: False)
    with pytest.warns(UserWarning, match=r"Triton is not installed \(pip install triton\)") as said:
        assert not kernels.uses_triton(OnCuda(), "auto")
        assert not kernels.uses_triton(OnCuda(), "auto")
    assert len(said) == 1


@pytest.mark.usefixtures("fresh")
def test_where_triton_does_not_work_pytorch_runs_and_says_why_once(monkeypatch):
    tried = []

    def fails(device):
        tried.append(device)
        raise RuntimeError("Failed to find C compiler.\nMore lines")

    monkeypatch.setattr(kernels, "available", lambda package: True)
    monkeypatch.setattr(kernels, "_try_kernel", fails)
    with pytest.warns(UserWarning, match=r"does not work on cuda:0 \(Failed to find C compiler.\): PyTorch") as said:
        assert not kernels.uses_triton(OnCuda(), "auto")
        assert not kernels.uses_triton(OnCuda(), "auto")
    assert len(said) == len(tried) == 1


def test_the_trial_is_a_kernel_that_runs(load_kernels):
    load_kernels("bias_act")
    kernels._try_kernel(torch.get_default_device())
    with pytest.raises((RuntimeError, AssertionError, ValueError)):
        kernels._try_kernel(torch.device("xpu"))


@pytest.mark.usefixtures("fresh")
def test_a_gpu_without_memory_says_so_and_is_asked_again(monkeypatch):
    def fails(device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(kernels, "available", lambda package: True)
    monkeypatch.setattr(kernels, "_try_kernel", fails)
    with pytest.raises(torch.OutOfMemoryError):
        kernels.uses_triton(OnCuda(), "auto")
    monkeypatch.setattr(kernels, "_try_kernel", lambda device: None)
    assert kernels.uses_triton(OnCuda(), "auto")


@pytest.mark.usefixtures("fresh")
def test_auto_takes_kernels_on_cuda_alone(monkeypatch, refuses):
    class Somewhere(OnCuda):
        is_cuda = False

    assert not kernels.uses_triton(Somewhere(), "auto")
    assert kernels.uses_triton(Somewhere(), "triton")
    Somewhere.is_cuda = True
    monkeypatch.setattr(kernels, "available", lambda package: True)
    monkeypatch.setattr(kernels, "_try_kernel", lambda device: None)
    assert kernels.uses_triton(Somewhere(), "auto")
    assert not kernels.uses_triton(Somewhere(), "torch")
    with refuses("impl", "'fast'", "'auto'"):
        kernels.uses_triton(Somewhere(), "fast")
