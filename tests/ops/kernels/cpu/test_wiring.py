"""Where Numba works large images go through its kernels; elsewhere PyTorch's operations do the same."""

import importlib
import os
import subprocess
import sys

import pytest
import torch
from tiny_generators import tiny_generator
from torch.fx.experimental.proxy_tensor import make_fx

from styleforge.losses import path_lengths, r1_penalty
from styleforge.networks import Discriminator, DiscriminatorConfig
from styleforge.ops import bias_act, kernels, winograd
from styleforge.ops.conv2d import conv2d


def large(N=1, C=16, H=64, W=64, dtype=torch.float32):
    return torch.randn(N, C, H, W, dtype=dtype).to(memory_format=torch.channels_last)


def gradients(loss, network):
    parameters = [p for p in network.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [g for g in found if g is not None]


def everything():
    """Images, logits, R1 with its gradient, path lengths with theirs, of tiny networks."""
    torch.manual_seed(0)
    G = tiny_generator().double().requires_grad_(True)
    D = Discriminator(DiscriminatorConfig(resolution=16, channel_base=64, channel_max=4)).double()
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


def test_networks_by_kernels_are_networks_by_pytorch(monkeypatch):
    expected = everything()
    taken = set()

    def taking(x, *others):
        taken.add(tuple(x.shape[1:]))
        return x.ndim == 4

    monkeypatch.setattr(importlib.import_module("styleforge.ops.bias_act"), "uses_numba", taking)
    for name in ("MIN_CHANNELS", "MIN_PIXELS"):
        monkeypatch.setattr(winograd, name, 0)
    for ours, theirs in zip(everything(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert {(4, 16, 16), (4, 4, 4)} <= taken


def test_images_that_are_large_enough_take_the_kernels_whatever_the_batch():
    assert kernels.uses_numba(large())
    assert kernels.uses_numba(large(N=0))
    assert kernels.uses_numba(large(dtype=torch.float64))
    assert not kernels.uses_numba(large(N=64, H=32))
    assert not kernels.uses_numba(large(C=8, H=128))
    assert not kernels.uses_numba(large(dtype=torch.bfloat16))
    assert not kernels.uses_numba(large().contiguous())
    assert not kernels.uses_numba(large().flatten(2))
    assert not kernels.uses_numba(large().to("meta"))


def test_stand_ins_of_tensors_do_not_take_the_kernels():
    class Special(torch.Tensor):
        pass

    x = large()
    assert not kernels.uses_numba(x.as_subclass(Special))
    assert not kernels.uses_numba(x, x.as_subclass(Special))
    seen = []
    torch.vmap(lambda bias: seen.append(kernels.uses_numba(x, bias)) or bias)(torch.randn(2, 16))
    assert seen == [False]


def test_gradients_in_batches_go_through():
    x, weight = large().requires_grad_(), torch.randn(16, 16, 3, 3)
    bias = torch.randn(16, requires_grad=True)
    y = bias_act(conv2d(x, weight, padding=1), bias, act="lrelu")
    assert kernels.uses_numba(y.detach())
    directions = torch.randn(3, *y.shape)
    together = torch.autograd.grad(y, [x, bias], directions, is_grads_batched=True, retain_graph=True)
    for i, direction in enumerate(directions):
        one = torch.autograd.grad(y, [x, bias], direction, retain_graph=True)
        for ours, theirs in zip(together, one, strict=True):
            torch.testing.assert_close(ours[i], theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace.*:FutureWarning")
def test_traces_hold_all_that_was_calculated(monkeypatch):
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 0)
    weight, bias = torch.randn(16, 16, 3, 3), torch.randn(16)

    def function(x):
        return bias_act(conv2d(x, weight, padding=1), bias, act="lrelu")

    x, other = large(), large()
    assert kernels.uses_numba(x)
    for traced in (torch.jit.trace(function, x, check_trace=False), make_fx(function)(x)):
        torch.testing.assert_close(traced(other), function(other), rtol=1e-4, atol=1e-4)


def test_tensors_on_the_cpu_do_not_care_for_another_default_device():
    x, bias, weight = large(C=32).requires_grad_(), torch.randn(32), torch.randn(32, 32, 3, 3, requires_grad=True)
    with torch.device("meta"):
        y = conv2d(bias_act(x, bias, act="lrelu"), weight, padding=1)
        y.sum().backward()
    assert {t.device.type for t in (y, x.grad, weight.grad)} == {"cpu"}


def test_autograd_notices_that_a_kernel_has_overwritten_what_it_needs():
    x = large().requires_grad_()
    y = x.sigmoid()
    with torch.no_grad():
        bias_act(y, torch.randn(16), act="lrelu", inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    with torch.inference_mode():
        bias_act(large(), torch.randn(16), act="lrelu", inplace=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which Windows lacks")
def test_a_forked_process_goes_on_without_kernels():
    program = """
import os, torch, warnings
from styleforge.ops import bias_act, kernels
x = torch.randn(1, 16, 64, 64).to(memory_format=torch.channels_last)
y = bias_act(x, act="lrelu")
assert kernels.uses_numba(x)
child = os.fork()
if child == 0:
    torch.set_num_threads(1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert not kernels.uses_numba(x)
    assert "forked" in str(said[0].message), said
    os._exit(0 if torch.allclose(bias_act(x, act="lrelu"), y) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert kernels.uses_numba(x)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def fresh():
    """No device has been tried yet."""
    kernels._run_on.cache_clear()
    yield
    kernels._run_on.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_where_numba_does_not_work_pytorch_runs_and_says_why_once(monkeypatch):
    def fails(device):
        raise ValueError("No threading layer could be loaded.\nMore lines")

    x, bias = large(), torch.randn(16)
    weight = torch.randn(16, 16, 3, 3)
    monkeypatch.setattr(kernels, "_try_kernel", fails)
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 0)
    with pytest.warns(UserWarning, match=r"Numba does not work on cpu \(No threading layer could be") as said:
        y = bias_act(x, bias, act="lrelu")
        z = conv2d(x, weight, padding=1)
    assert len(said) == 1
    torch.testing.assert_close(y, bias_act(x, bias, act="lrelu", impl="reference"))
    torch.testing.assert_close(z, torch.nn.functional.conv2d(x, weight, padding=1), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("fresh")
def test_without_numba_pytorch_runs_and_says_so_once(monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda package: package != "numba")
    with pytest.warns(UserWarning, match=r"Numba is not installed \(pip install numba\)") as said:
        assert not kernels.uses_numba(large())
        assert not kernels.takes_numba(large())
    assert len(said) == 1
