import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import jacrev

from styleforge.losses import discriminator_loss, generator_loss, path_length_penalty, path_lengths, r1_penalty


@pytest.fixture
def logits():
    return torch.tensor([[-300.0], [-3.0], [0.0], [0.5], [300.0]], dtype=torch.float64)


def test_generator_loss_is_the_negative_log_of_the_sigmoid(logits):
    x = logits[1:4]
    torch.testing.assert_close(generator_loss(x), -torch.log(1 / (1 + torch.exp(-x[:, 0]))))
    assert generator_loss(logits[:1]).item() == 300
    assert 0 <= generator_loss(logits[-1:]).item() < 1e-100
    assert generator_loss(torch.zeros(1, 1)).item() == pytest.approx(math.log(2))


def test_discriminator_loss_is_the_cross_entropy_with_the_true_answer(logits):
    for real in (True, False):
        expected = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, real), reduction="none")
        torch.testing.assert_close(discriminator_loss(logits, real=real), expected[:, 0])


def test_losses_give_one_value_per_sample():
    logits = torch.randn(7, 1)
    assert generator_loss(logits).shape == discriminator_loss(logits, real=True).shape == (7,)


def test_the_generator_loss_does_not_saturate_where_the_discriminator_is_sure():
    logits = torch.full((1, 1), -50.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(generator_loss(logits).sum(), logits)
    assert gradient.item() == pytest.approx(-1)


# R1


def test_r1_of_a_quadratic_discriminator_has_a_closed_form():
    """D(x) = xᵀAx/2 + bᵀx with a symmetric A has the gradient Ax + b."""
    A, b = torch.randn(12, 12, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    A = A + A.t()
    img = torch.randn(5, 3, 2, 2, dtype=torch.float64)

    def D(img):
        x = img.flatten(1)
        return (x @ A * x).sum(1, keepdim=True) / 2 + x @ b[:, None]

    penalty, logits = r1_penalty(D, img)
    torch.testing.assert_close(penalty, (img.flatten(1) @ A + b).square().sum(1))
    torch.testing.assert_close(logits, D(img))


def test_r1_trains_the_weights_of_the_discriminator():
    """For D(x) = wᵀx the penalty is ||w||², whatever the picture, and its gradient is 2w."""
    w = torch.randn(12, dtype=torch.float64, requires_grad=True)
    penalty, _ = r1_penalty(lambda img: img.flatten(1) @ w[:, None], torch.randn(4, 3, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(penalty, w.square().sum().expand(4))
    (gradient,) = torch.autograd.grad(penalty.mean(), w)
    torch.testing.assert_close(gradient, 2 * w)


def test_r1_counts_what_a_picture_does_to_the_logits_of_the_others():
    """As the minibatch standard deviation does: D(x)_n = mean over the batch, so every gradient is that of the sum."""
    img = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    penalty, _ = r1_penalty(lambda img: img.square().sum([1, 2, 3]).mean().expand(4)[:, None], img)
    torch.testing.assert_close(penalty, (2 * img).square().sum([1, 2, 3]))


def test_r1_leaves_the_pictures_alone():
    img = torch.randn(2, 1, 2, 2)
    r1_penalty(lambda img: img.square().sum([1, 2, 3])[:, None], img)
    assert not img.requires_grad
    assert img.grad is None


# Path length


@pytest.mark.parametrize("size", [(4, 4), (4, 8)])
def test_path_lengths_of_a_linear_generator_have_a_closed_form(size):
    """g(ws) = Σ_l A_l w_l has J_lᵀy = A_lᵀy."""
    N, L, W, C = 3, 4, 5, 2
    pixels = C * size[0] * size[1]
    A = torch.randn(L, pixels, W, dtype=torch.float64)
    ws = torch.randn(N, L, W, dtype=torch.float64, requires_grad=True)
    y = torch.randn(N, C, *size, dtype=torch.float64)
    lengths = path_lengths(lambda ws: torch.einsum("lpw,nlw->np", A, ws).reshape(N, C, *size), ws, y)
    scaled = y.flatten(1) / math.sqrt(size[0] * size[1])
    expected = torch.einsum("lpw,np->nlw", A, scaled).square().sum(2).mean(1).sqrt()
    torch.testing.assert_close(lengths, expected)


def test_path_lengths_are_those_of_the_jacobian():
    N, L, W, C, H = 3, 2, 4, 2, 2
    A = torch.randn(L * W, C * H * H, dtype=torch.float64)
    ws = torch.randn(N, L, W, dtype=torch.float64, requires_grad=True)
    y = torch.randn(N, C, H, H, dtype=torch.float64)

    def synthesis(ws):
        return torch.tanh(ws.flatten(1) @ A).reshape(len(ws), C, H, H)

    for n, length in enumerate(path_lengths(synthesis, ws, y)):
        J = jacrev(lambda w: synthesis(w[None])[0].flatten())(ws[n].detach())  # [C·H·H, L, W]
        product = torch.einsum("plw,p->lw", J, y[n].flatten() / H)
        torch.testing.assert_close(length.detach(), product.square().sum(1).mean().sqrt())


def test_path_lengths_train_the_synthesis_network():
    a = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    ws = torch.randn(2, 1, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 1, 2, 2, dtype=torch.float64)
    lengths = path_lengths(lambda ws: a * ws.reshape(2, 1, 2, 2), ws, y)
    torch.testing.assert_close(lengths, a * y.flatten(1).norm(dim=1) / 2)
    (gradient,) = torch.autograd.grad(lengths.sum(), a)
    torch.testing.assert_close(gradient, y.flatten(1).norm(dim=1).sum() / 2)


def test_the_weight_of_equation_5_is_2_in_our_units():
    """Eq. 5's weight on lengths summed over the layers of a square image, of which there are 2·(log2 r - 1)."""
    for r in (8, 64, 1024):
        gamma = math.log(2) / (r**2 * (math.log(r) - math.log(2)))
        layers = 2 * (math.log2(r) - 1)
        assert gamma * r**2 * layers == pytest.approx(2)


def test_path_length_penalty_is_the_squared_distance_from_the_target():
    penalty = path_length_penalty(torch.tensor([1.0, 2.0, 5.0]), torch.tensor(2.0))
    assert penalty.tolist() == [1, 0, 9]
