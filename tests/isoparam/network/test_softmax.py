"""Softmax cross-entropy and its derived gradients against torch's own and against autograd."""

import re

import pytest
import torch
from torch.nn import functional

from isoparam.network.softmax import (
    classifier_gradients,
    cross_entropy,
    cross_entropy_gradient,
    cross_entropy_with_gradient,
)

# Shapes of the labels; the logits have one axis of classes more.
SHAPES = [(), (0,), (1,), (7,), (3, 5)]


def draw(shape, classes, dtype=torch.float64, scale=3.0):
    generator = torch.Generator().manual_seed(len(shape) + 10 * classes)
    logits = scale * torch.randn(*shape, classes, generator=generator, dtype=dtype)
    return logits, torch.randint(classes, shape, generator=generator)


def tolerance(logits):
    """What two ways to the loss or to the probabilities may differ by.

    With u the unit of rounding and Z the largest logit: z - max is off by 2 Z u, which exp turns
    into a relative error, and exp adds 2 u of its own; the sum over C classes adds C u, the
    logarithm or the quotient 2 u, and two last sums of numbers below 2 Z + log C as many u each.
    Each of the two ways loses that much, and eps = 2 u.
    """
    classes = logits.shape[-1]
    largest = float(logits.abs().max()) if logits.numel() else 0.0
    return (6 * largest + 3 * classes + 4) * torch.finfo(logits.dtype).eps


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("classes", [1, 2, 10])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradient_are_those_of_torch(shape, classes, dtype):
    logits, labels = draw(shape, classes, dtype)
    leaf = logits.clone().requires_grad_()
    expected = functional.cross_entropy(
        leaf.view(-1, classes), labels.view(-1), reduction="none"
    ).view(shape)
    expected.sum().backward()
    separate = cross_entropy(logits, labels), cross_entropy_gradient(logits, labels)
    bound = {"rtol": 0, "atol": tolerance(logits)}
    for loss, gradient in (separate, cross_entropy_with_gradient(logits, labels)):
        torch.testing.assert_close(loss, expected.detach(), **bound)
        torch.testing.assert_close(gradient, leaf.grad, **bound)
        assert bool((loss >= 0).all())


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_is_the_derivative_of_the_loss(shape):
    logits, labels = draw(shape, 6)
    leaf = logits.clone().requires_grad_()
    cross_entropy(leaf, labels).sum().backward()
    torch.testing.assert_close(
        cross_entropy_gradient(logits, labels), leaf.grad, rtol=0, atol=tolerance(logits)
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rows_of_the_gradient_sum_to_zero(dtype, scale):
    logits, labels = draw((50,), 10, dtype, scale)
    total = cross_entropy_gradient(logits, labels).double().sum(-1)
    # The exponentials cancel: only their sum, C terms, and C + 1 further operations round.
    torch.testing.assert_close(
        total, torch.zeros_like(total), rtol=0, atol=(2 * 10 + 1) * torch.finfo(dtype).eps / 2
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("logits", "label", "loss", "gradient"),
    [
        ([1e5, 0.0, -1e5], 0, 0.0, [0.0, 0.0, 0.0]),
        ([1e5, 0.0, -1e5], 1, 1e5, [1.0, -1.0, 0.0]),
        ([1e5, 0.0, -1e5], 2, 2e5, [1.0, 0.0, -1.0]),
        ([-1e5, -2e5], 1, 1e5, [1.0, -1.0]),
    ],
)
def test_large_logits_neither_overflow_nor_vanish(logits, label, loss, gradient, dtype):
    # All numbers here are exact, and exp(-1e5) is 0.
    z, labels = torch.tensor([logits], dtype=dtype), torch.tensor([label])
    assert cross_entropy(z, labels).tolist() == [loss]
    assert cross_entropy_gradient(z, labels).tolist() == [gradient]


@pytest.mark.parametrize("level", [1e5, -1e5])
def test_a_common_shift_of_the_logits_changes_nothing_but_rounding(level):
    logits, labels = draw((20,), 10)
    shifted = logits + level
    bound = {"rtol": 0, "atol": tolerance(shifted)}
    torch.testing.assert_close(
        cross_entropy(shifted, labels), cross_entropy(logits, labels), **bound
    )
    torch.testing.assert_close(
        cross_entropy_gradient(shifted, labels), cross_entropy_gradient(logits, labels), **bound
    )


@pytest.mark.parametrize(("B", "d", "C"), [(1, 1, 2), (1, 5, 3), (4, 1, 3), (6, 5, 10)])
def test_gradients_of_a_classifier_are_those_of_autograd(B, d, C):
    generator = torch.Generator().manual_seed(B + 10 * d)
    x, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((B, d), (C, d), (C,))
    )
    labels = torch.randint(C, (B,), generator=generator)
    leaves = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    functional.cross_entropy(functional.linear(x, *leaves), labels).backward()
    # A logit, a sum of d + 1 terms below `largest`, is off by (d + 1) u times that; then as above;
    # then a mean of B products with x.
    largest = functional.linear(x.abs(), weight.abs(), bias.abs())
    off = (d + 1) * float(largest.max()) * torch.finfo(x.dtype).eps + tolerance(largest)
    bound = (off + (B + 2) * torch.finfo(x.dtype).eps) * max(1.0, float(x.abs().max()))
    for derived, leaf in zip(classifier_gradients(x, weight, bias, labels), leaves, strict=True):
        torch.testing.assert_close(derived, leaf.grad, rtol=0, atol=bound)


def test_arguments_are_left_as_they_were():
    logits, labels = draw((7,), 4)
    before = logits.clone(), labels.clone()
    cross_entropy(logits, labels)
    cross_entropy_gradient(logits, labels)
    cross_entropy_with_gradient(logits, labels)
    assert torch.equal(logits, before[0])
    assert torch.equal(labels, before[1])


FUNCTIONS = [
    cross_entropy,
    cross_entropy_gradient,
    # Logits of value 0 with the classifier's own arguments.
    lambda logits, labels: classifier_gradients(
        logits.new_zeros(len(logits), 2),
        logits.new_zeros(logits.shape[1], 2),
        logits.new_zeros(logits.shape[1]),
        labels,
    ),
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "labels must be of the logits' shape without the last axis, (3,), got (2,)"),
        ([[0], [1], [2]], "without the last axis, (3,), got (3, 1)"),
        ([0, 1, 4], "labels must lie in [0, 4), got 4"),
        ([-1, 1, 3], "labels must lie in [0, 4), got -1"),
        ([255, 255, 255], "labels must lie in [0, 4), got 255"),
    ],
)
def test_labels_of_a_wrong_shape_or_value_are_refused(function, labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        function(torch.zeros(3, 4), torch.tensor(labels))
