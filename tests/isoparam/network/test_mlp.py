"""The perceptron without autograd against plain torch modules differentiated by autograd.

Parameters, images and gradients are small whole numbers: all sums and products are then exact in
float64, in whatever order they are taken, and the comparisons need no tolerance.
"""

import re
from itertools import pairwise
from math import sqrt

import pytest
import torch
from scipy import stats
from torch.nn import functional

from isoparam.budget import parameters_of
from isoparam.network import mlp
from isoparam.network.mlp import forward, gradients, initialise, layer_views, logits

# A correct draw fails at this level once in ten thousand seeds, and the seeds are fixed.
LEVEL = 1e-4
B = 6


def sizes_of(depth):
    return [5, *[4] * depth, 3]


def whole(shape, seed):
    """Whole numbers from -1 to 2: more positive than negative ones, so that no layer dies."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 3, shape, generator=generator).double()


def plain_forward(parameters, x, skips):
    """One replica by torch's own functions; weights are (fan-out, fan-in)."""
    for index, (weight, bias) in enumerate(parameters[:-1]):
        output = functional.relu(functional.linear(x, weight, bias))
        x = x + output if skips and index else output
    return functional.linear(x, *parameters[-1])


def plain_parameters(layers, replica):
    return [
        (w[replica].T.clone().requires_grad_(), b[replica, 0].clone().requires_grad_())
        for w, b in layers
    ]


@pytest.fixture(params=[0, 1, 2, 8], ids=lambda depth: f"depth{depth}")
def depth(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "skips"])
def skips(request):
    return request.param


@pytest.fixture(params=[1, 3], ids=lambda replicas: f"R{replicas}")
def flat(request, depth):
    return whole((request.param, parameters_of(sizes_of(depth))), seed=depth)


def test_forward_is_that_of_plain_torch(flat, depth, skips):
    layers = layer_views(flat, sizes_of(depth))
    x = whole((len(flat), B, 5), seed=1)
    z = forward(layers, x, skips=skips)[-1]
    for replica in range(len(flat)):
        expected = plain_forward(plain_parameters(layers, replica), x[replica], skips)
        assert bool((expected != 0).any())
        assert torch.equal(z[replica], expected)


def backward(layers, x, by_logits, *, skips=False):
    """The gradients of all parameters, flattened, from that of the logits."""
    outputs = forward(layers, x, skips=skips)
    return flattened([*gradients(layers, x, outputs, by_logits.clone(), skips=skips)][::-1])


def flattened(gradients):
    """In the order of the flat tensor: each weight as (fan-out, fan-in), then its bias."""
    return torch.cat([tensor for w, b in gradients for tensor in (w.mT.flatten(1), b[:, 0])], 1)


def gradient_by_autograd(parameters, loss):
    """Of one replica, in the order of the flat tensor."""
    loss.backward()
    # No layer is dead, or nothing would be compared.
    assert all(bool((weight.grad != 0).any()) for weight, _ in parameters)
    return torch.cat([torch.cat([w.grad.flatten(), b.grad]) for w, b in parameters])


def test_backward_gives_the_gradients_of_autograd(flat, depth, skips):
    layers = layer_views(flat, sizes_of(depth))
    x, by_logits = whole((len(flat), B, 5), seed=1), whole((len(flat), B, 3), seed=2)
    found = backward(layers, x, by_logits, skips=skips)
    for replica in range(len(flat)):
        parameters = plain_parameters(layers, replica)
        loss = (plain_forward(parameters, x[replica], skips) * by_logits[replica]).sum()
        assert torch.equal(found[replica], gradient_by_autograd(parameters, loss))


def test_a_unit_at_exactly_zero_passes_no_gradient():
    layers = layer_views(torch.zeros(1, parameters_of([2, 3, 1]), dtype=torch.float64), [2, 3, 1])
    layers[1][0].fill_(1.0)
    x = torch.ones(1, B, 2, dtype=torch.float64)
    delta = torch.ones(1, B, 1, dtype=torch.float64)
    gradient = backward(layers, x, delta)
    # Only the bias of the last layer sees the loss: B images with a delta of 1.
    assert gradient[0].tolist() == [0.0] * (parameters_of([2, 3, 1]) - 1) + [B]


def test_replicas_do_not_touch_each_other(flat, depth):
    layers = layer_views(flat, sizes_of(depth))
    x = whole((len(flat), B, 5), seed=1)
    first = forward(layers, x)[-1][0].clone()
    flat[1:] = torch.nan
    x[1:] = torch.nan
    assert torch.equal(forward(layers, x)[-1][0], first)


def test_views_cover_the_flat_tensor_in_order_and_exactly_once(flat, depth):
    flat.copy_(torch.arange(flat.numel()).view_as(flat))
    layers = layer_views(flat, sizes_of(depth))
    assert [(w.shape, b.shape) for w, b in layers] == [
        ((len(flat), i, o), (len(flat), 1, o)) for i, o in pairwise(sizes_of(depth))
    ]
    assert torch.equal(flattened(layers), flat)


def test_views_share_memory_with_the_flat_tensor(flat, depth):
    layers = layer_views(flat, sizes_of(depth))
    for tensor in (tensor for layer in layers for tensor in layer):
        tensor.fill_(7.0)
    assert bool((flat == 7.0).all())
    flat.fill_(8.0)
    assert all(bool((tensor == 8.0).all()) for layer in layers for tensor in layer)


@pytest.mark.parametrize("length", [0, 28, 30])
def test_views_of_a_wrong_length_are_refused(length):
    message = (
        "flat must have 29 columns, as many as a perceptron of sizes [5, 4, 1] has parameters, "
        f"got {length}"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        layer_views(torch.zeros(2, length), [5, 4, 1])


@pytest.mark.parametrize(
    ("sizes", "gains", "skips"),
    [
        ([784, 10], [1], False),
        ([784, 100, 10], [2, 1], False),
        ([784, 100, 50, 10], [2, 2, 1], False),
        ([784, 100, 100, 100, 10], [2, 2, 2, 1], False),
        ([784, 100, 100, 100, 10], [2, 1, 1, 1], True),
        ([784, 100, 50, 10], [2, 2, 1], True),
    ],
    ids=str,
)
def test_initial_weights_are_normal_with_the_variance_that_keeps_the_scale(sizes, gains, skips):
    flat = torch.full((2, parameters_of(sizes)), torch.nan)
    layers = layer_views(flat, sizes)
    initialise(layers, [torch.Generator().manual_seed(seed) for seed in (0, 1)], skips=skips)
    for (weight, bias), gain in zip(layers, gains, strict=True):
        draws = weight.double().flatten() / sqrt(gain / weight.shape[1])
        # A sum of n squares of standard normal numbers is chi-square with n degrees of freedom.
        low, high = stats.chi2.interval(1 - LEVEL, len(draws))
        assert low < float((draws**2).sum()) < high
        assert stats.kstest(draws.numpy(), "norm").pvalue > LEVEL
        assert bool((bias == 0).all())


def test_initial_weights_of_a_replica_depend_on_its_generator_alone():
    sizes = sizes_of(2)

    state = torch.get_rng_state()
    alone, among = torch.zeros(1, parameters_of(sizes)), torch.zeros(3, parameters_of(sizes))
    for flat, seeds in (alone, [3]), (among, [5, 3, 7]):
        initialise(layer_views(flat, sizes), [torch.Generator().manual_seed(s) for s in seeds])
    assert torch.equal(alone[0], among[1])
    assert not torch.equal(among[0], among[1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_generators_as_replicas_are_needed(count):
    layers = layer_views(torch.zeros(2, parameters_of([5, 3])), [5, 3])
    with pytest.raises(ValueError, match="argument"):
        initialise(layers, [torch.Generator() for _ in range(count)])


@pytest.mark.parametrize("images", [1, 3, 4, 5, 8, 11])
def test_logits_in_chunks_are_those_of_one_batch(flat, depth, images, skips, monkeypatch):
    monkeypatch.setattr(mlp, "EVALUATION_BATCH", 4)
    layers = layer_views(flat, sizes_of(depth))
    x = whole((images, 5), seed=1)
    expected = forward(layers, x.expand(len(flat), -1, -1), skips=skips)[-1]  # (R, N, C)
    assert torch.equal(logits(layers, x, skips=skips), expected)


def test_logits_of_no_image_are_empty():
    layers = layer_views(torch.zeros(2, parameters_of([5, 3])), [5, 3])
    assert logits(layers, torch.zeros(0, 5)).shape == (2, 0, 3)
