import numpy as np
import pytest
import scipy.special
import torch
from torch.autograd import gradcheck, gradgradcheck

from styleforge.ops import bias_act
from styleforge.ops.bias_act import ACTIVATIONS

BY_NUMPY = {
    "linear": lambda x: x,
    "lrelu": lambda x: np.where(x > 0, x, 0.2 * x) * np.sqrt(2),
    "relu": lambda x: np.maximum(x, 0) * np.sqrt(2),
    "swish": lambda x: x * scipy.special.expit(x) * np.sqrt(2),
    "tanh": np.tanh,
    "sigmoid": scipy.special.expit,
    "softplus": lambda x: np.logaddexp(0, x),
}


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_equals_numpy_with_the_gain_that_keeps_variance(act):
    x, bias = torch.randn(3, 4, 5, 2, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    expected = BY_NUMPY[act](x.numpy() + bias.numpy()[:, None, None])
    np.testing.assert_allclose(bias_act(x, bias, act=act).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_is_twice_differentiable(act):
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, b: bias_act(x, b, act=act, gain=1.5), (x, bias))
    assert gradgradcheck(lambda x, b: bias_act(x, b, act=act, gain=1.5), (x, bias))
    assert gradcheck(lambda x, b: bias_act(x, b, act=act, clamp=0.7), (x, bias))


@pytest.mark.parametrize("act", ["lrelu", "relu"])
def test_keeps_the_second_moment_of_a_normal_signal(act):
    moment = bias_act(torch.randn(200_000), act=act, dim=0).square().mean().item()
    assert moment == pytest.approx(1.04 if act == "lrelu" else 1.0, abs=0.02)


def test_clamps_after_the_gain():
    x = torch.tensor([[-9.0, -0.5, 0.5, 9.0]])
    assert bias_act(x, act="linear", gain=2.0, clamp=3.0).tolist() == [[-3.0, -1.0, 1.0, 3.0]]


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_the_bias_runs_along_any_dimension(dim):
    x = torch.zeros(2, 3, 4)
    bias = torch.arange(x.shape[dim], dtype=torch.float32)
    y = bias_act(x, bias, dim=dim).movedim(dim, 0)
    assert all((y[i] == i).all() for i in range(len(bias)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_keeps_the_dtype_of_the_features(dtype):
    for act in ACTIVATIONS:
        x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
        y = bias_act(x.to(dtype), torch.ones(3), act=act, clamp=2.0)
        assert y.dtype == dtype
        expected = bias_act(x, torch.ones(3).double(), act=act, clamp=2.0)
        torch.testing.assert_close(y.double(), expected, rtol=0.02, atol=0.02)


def test_the_input_stays_as_it_was():
    x = torch.randn(2, 3)
    before = x.clone()
    bias_act(x, torch.ones(3), act="lrelu", clamp=0.5)
    assert torch.equal(x, before)


def test_bad_arguments_are_refused(refuses):
    with refuses("'gelu'", "lrelu", "choose"):
        bias_act(torch.zeros(1, 2), act="gelu")
    with refuses("[3]", "[2]", "dim 1"):
        bias_act(torch.zeros(1, 2), torch.zeros(3))
    with refuses("[2, 1]"):
        bias_act(torch.zeros(1, 2), torch.zeros(2, 1))
