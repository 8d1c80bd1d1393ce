import numpy as np
import pytest
import scipy.special
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from styleforge.ops import bias_act
from styleforge.ops.bias_act import ACTIVATIONS, SLOPES

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
    for shape in ([1, 2], [2], [1, 3]):
        with refuses("scale", str(shape), "[1, 2]" if shape != [1, 2] else "[2, 2]"):
            bias_act(torch.zeros(1 + (shape == [1, 2]), 2, 3, 3), scale=torch.ones(shape))
    with refuses("[2, 1]"):
        bias_act(torch.zeros(1, 2), torch.zeros(2, 1))


# Everything fused


def tensors(dtype=torch.float64, ndim=4):
    pixels = (5, 3)[: ndim - 2]
    x, scale = torch.randn(2, 3, *pixels, dtype=dtype), torch.rand(2, 3, dtype=dtype) + 0.5
    noise, bias = torch.randn(2, 1, *pixels, dtype=dtype), torch.randn(3, dtype=dtype)
    return {"x": x, "scale": scale, "noise": noise, "bias": bias}


SUBSETS = [(), ("bias",), ("scale",), ("noise",), ("scale", "noise"), ("scale", "bias"), ("scale", "noise", "bias")]


def chosen(names, **options):
    values = {name: value.requires_grad_() for name, value in tensors(**options).items() if name in ("x", *names)}
    return list(values), list(values.values())


@pytest.mark.parametrize("act", SLOPES)
@pytest.mark.parametrize("names", SUBSETS, ids=str)
@pytest.mark.parametrize("clamp", [None, 0.8])
def test_fused_is_the_reference_with_its_derivatives(act, names, clamp):
    names, values = chosen(names)
    dy = torch.randn_like(values[0])

    def function(*values, impl="torch"):
        return bias_act(**dict(zip(names, values, strict=True)), act=act, gain=1.3, clamp=clamp, impl=impl)

    def gradients(impl):
        y = function(*values, impl=impl)
        return [y, *torch.autograd.grad(y, values, dy)]

    for ours, expected in zip(gradients("torch"), gradients("reference"), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    assert gradcheck(function, values)
    assert gradgradcheck(function, values)


@pytest.mark.parametrize("act", SLOPES)
@pytest.mark.parametrize("names", SUBSETS, ids=str)
def test_in_place_is_the_same_function(act, names):
    names, values = chosen(names)

    def function(x, *rest, **options):
        others = dict(zip(names[1:], rest, strict=True))
        return bias_act(x * 2, **others, act=act, gain=1.3, clamp=0.8, **options)

    dy = torch.randn_like(values[0])
    results = []
    for inplace in (False, True):
        y = function(*values, inplace=inplace)
        results.append([y, *torch.autograd.grad(y, values, dy)])
    assert all(torch.equal(ours, expected) for ours, expected in zip(*results, strict=True))
    assert gradgradcheck(lambda *values: function(*values, inplace=True), values)
    with torch.no_grad():
        x = values[0].clone()
        y = bias_act(x, **dict(zip(names[1:], values[1:], strict=True)), act=act, gain=1.3, clamp=0.8, inplace=True)
        assert y.data_ptr() == x.data_ptr()


def test_nothing_to_do_takes_nothing():
    x = torch.randn(2, 3)
    assert bias_act(x) is x


@pytest.mark.parametrize("shape", [(1, 1, 5, 3), (2, 1, 5, 3), (2, 3, 5, 3), (1, 3, 5, 3)])
@pytest.mark.parametrize("gain", [1.0, 1.3])
def test_noise_of_every_shape_gets_its_gradient(shape, gain):
    noise = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    _, (x, scale, bias) = chosen(("scale", "bias"))
    inputs = (x, scale, noise, bias)
    assert gradcheck(lambda x, s, n, b: bias_act(x, b, scale=s, noise=n, act="lrelu", gain=gain), inputs)
    assert gradcheck(lambda x, _, n, b: bias_act(x, b, noise=n, act="lrelu", gain=gain), inputs)


def test_gradients_that_need_no_sum_are_kept_apart():
    x, scale, bias = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((1, 5), (1, 5), (5,)))
    assert gradcheck(lambda x, s, b: bias_act(x, b, scale=s, act="lrelu", gain=1), (x, scale, bias))


@pytest.mark.parametrize("impl", ["torch", "reference"])
def test_inputs_are_left_as_they_are(impl):
    values = tensors()
    before = {name: value.clone() for name, value in values.items()}
    for names in SUBSETS:
        bias_act(values["x"], **{name: values[name] for name in names}, act="lrelu", clamp=0.5, impl=impl)
    assert all(torch.equal(values[name], before[name]) for name in values)


def test_what_cannot_be_fused_is_refused(refuses):
    for options in ({"act": "swish"}, {"dim": 2}, {"gain": -1.0}):
        with refuses("impl", "expected 'auto'"):
            bias_act(torch.zeros(2, 3, 4), **({"impl": "torch"} | options))
    with refuses("impl", "'fast'", "'auto'"):
        bias_act(torch.zeros(2, 3, 4), impl="fast")


def test_fused_works_on_vectors_and_half_precision():
    for ndim in (2, 3):
        values = tensors(ndim=ndim)
        fused, reference = (bias_act(**values, act="lrelu", impl=impl) for impl in ("torch", "reference"))
        torch.testing.assert_close(fused, reference)
    values = tensors(dtype=torch.float32)
    y = bias_act(values["x"].bfloat16(), values["bias"], scale=values["scale"], noise=values["noise"], impl="torch")
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), bias_act(**values), rtol=0.02, atol=0.03)


@pytest.mark.parametrize("impl", ["reference", "torch"])
@pytest.mark.parametrize("act", SLOPES)
def test_infinite_features_stay_so(act, impl):
    y = bias_act(torch.tensor([[torch.inf, -torch.inf, torch.nan]]), act=act, impl=impl)
    below = {"linear": -torch.inf, "lrelu": -torch.inf, "relu": 0.0}[act]
    assert y[0, :2].tolist() == [torch.inf, below]
    assert y[0, 2].isnan()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (4, 4), (3, 1, 4, 4), (1, 2, 4, 4), (2, 1, 4, 1)])
def test_noise_that_only_some_ways_could_spread_is_refused_by_all(shape, refuses):
    for impl in ("reference", "torch", "auto"):
        with refuses("noise", str(list(shape)), "[2 or 1, 3 or 1]"):
            bias_act(torch.zeros(2, 3, 4, 4), noise=torch.zeros(shape), impl=impl)


def test_derivatives_in_forward_mode_go_through():
    x, scale = torch.randn(2, 3, 4, 4), torch.rand(2, 3)
    tangents = torch.randn_like(x), torch.randn_like(scale)
    for x_tangent, scale_tangent in (tangents, (None, tangents[1]), (tangents[0], None)):
        with forward_ad.dual_level():
            duals = [
                value if tangent is None else forward_ad.make_dual(value, tangent)
                for value, tangent in ((x, x_tangent), (scale, scale_tangent))
            ]
            y = bias_act(duals[0], scale=duals[1], act="lrelu")
            ours = forward_ad.unpack_dual(y).tangent
        before = torch.zeros_like(x)
        if x_tangent is not None:
            before = before + x_tangent * scale[:, :, None, None]
        if scale_tangent is not None:
            before = before + x * scale_tangent[:, :, None, None]
        slope = torch.where(x > 0, 1.0, 0.2) * 2**0.5
        torch.testing.assert_close(ours, before * slope)
