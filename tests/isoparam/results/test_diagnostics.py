"""Calibration, votes, gradients and similarities against slow plain references."""

import math
import re

import pytest
import torch
from sklearn import metrics
from torch.nn import functional

from isoparam.budget import parameters_of
from isoparam.network.mlp import initialise, layer_views
from isoparam.results.diagnostics import (
    calibration,
    confusion_matrix,
    expected_calibration_error,
    gradient_norms,
    hardest,
    similarities,
    votes,
)

EPS = torch.finfo(torch.float64).eps


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def predictions(count, seed=0):
    """Confidences, each third of them a multiple of 1/20, so that some lie between two bins."""
    draw = torch.rand(count, generator=generator(seed), dtype=torch.float64)
    draw[::3] = (draw[::3] * 20).round() / 20
    return draw, torch.rand(count, generator=generator(seed + 1), dtype=torch.float64) < draw


def plain_bins(confidence, correct, bins):
    """The members of each bin ((m - 1) / M, m / M]; 0 counts to the first."""
    members = [[] for _ in range(bins)]
    for value, right in zip(confidence.tolist(), correct.tolist(), strict=True):
        (index,) = [
            m for m in range(bins) if (m / bins < value or m == 0) and value <= (m + 1) / bins
        ]
        members[index].append((value, right))
    return members


def plain_error(members, count):
    """Guo et al. 2017, equation 3, term by term."""
    total = 0.0
    for members_of_bin in members:
        if members_of_bin:
            accuracy = sum(right for _, right in members_of_bin) / len(members_of_bin)
            confidence = math.fsum(value for value, _ in members_of_bin) / len(members_of_bin)
            total += len(members_of_bin) / count * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 2, 10, 15, 20])
@pytest.mark.parametrize("count", [1, 2, 50, 999])
def test_bins_and_error_are_those_of_a_loop(count, bins):
    confidence, correct = predictions(count)
    members = plain_bins(confidence, correct, bins)
    found = calibration(confidence, correct, bins)
    assert found.counts.tolist() == [len(each) for each in members]
    for index, each in enumerate(members):
        mean = math.fsum(value for value, _ in each) / max(len(each), 1)
        right = sum(right for _, right in each) / max(len(each), 1)
        # A sum of numbers up to 1 in the order they come loses one rounding for each.
        assert found.confidence[index].item() == pytest.approx(mean, rel=count * EPS, abs=0)
        assert found.accuracy[index].item() == right
    assert expected_calibration_error(found) == pytest.approx(
        plain_error(members, count), rel=0, abs=2 * (count + bins) * EPS
    )


@pytest.mark.parametrize(
    ("confidence", "correct", "error"),
    [([1.0, 1.0], [True, True], 0.0), ([1.0], [False], 1.0), ([0.75] * 4, [True] * 3 + [False], 0)],
)
def test_calibration_at_the_ends(confidence, correct, error):
    bins = calibration(torch.tensor(confidence), torch.tensor(correct), 15)
    assert expected_calibration_error(bins) == error


@pytest.mark.parametrize(
    ("confidence", "correct", "bins", "message"),
    [
        (torch.ones(2), torch.ones(3).bool(), 15, "must be of one shape (N,), N of at least 1, "),
        (torch.ones(2, 2), torch.ones(2, 2).bool(), 15, "got (2, 2) and (2, 2)"),
        (torch.ones(0), torch.ones(0).bool(), 15, "got (0,) and (0,)"),
        (torch.ones(2), torch.ones(2).bool(), 0, "bins must be 1 or more, got 0"),
        (torch.tensor([0.5, 1.5]), torch.ones(2).bool(), 15, "in [0, 1], got 0.5 to 1.5"),
        (torch.tensor([0.5, math.nan]), torch.ones(2).bool(), 15, "in [0, 1], got nan"),
    ],
)
def test_what_is_no_confidence_is_refused(confidence, correct, bins, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        calibration(confidence, correct, bins)


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("classes", [2, 10])
def test_votes_and_confusions_are_those_of_a_loop_and_of_sklearn(networks, classes):
    predicted = torch.randint(classes, (networks, 60), generator=generator())
    labels = torch.randint(classes, (60,), generator=generator(1))
    by_image = votes(predicted, classes)
    assert by_image.tolist() == [
        [sum(int(said == c) for said in predicted[:, i]) for c in range(classes)] for i in range(60)
    ]
    expected = sum(
        metrics.confusion_matrix(labels, replica, labels=range(classes)) for replica in predicted
    )
    assert confusion_matrix(by_image, labels).tolist() == expected.tolist()


@pytest.mark.parametrize("networks", [1, 3, 9])
def test_the_hardest_are_those_that_most_networks_get_wrong(networks):
    predicted = torch.randint(4, (networks, 40), generator=generator())
    labels = torch.randint(4, (40,), generator=generator(1))
    wrong = [sum(int(said != labels[i]) for said in predicted[:, i]) for i in range(40)]
    expected = [i for i in range(40) if wrong[i] == max(wrong)]
    assert hardest(votes(predicted, 4), labels).tolist() == expected


def test_where_no_network_is_wrong_no_image_is_hard():
    labels = torch.tensor([1, 0, 1])
    assert hardest(votes(labels.expand(2, -1), 2), labels).tolist() == []


@pytest.mark.parametrize("function", [confusion_matrix, hardest])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "votes must be of shape (N, C) with N labels, got (3, 2) and (2,) labels"),
        ([0, 1, 2], "labels must lie in [0, 2), got 2"),
    ],
)
def test_labels_that_do_not_belong_are_refused(function, labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        function(torch.ones(3, 2, dtype=torch.int64), torch.tensor(labels))


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), "predicted must be of shape (R, N), got (3,)"),
        (torch.tensor([[0, 2]]), "predicted classes must lie in [0, 2), got 2"),
    ],
)
def test_what_is_no_vote_is_refused(predicted, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        votes(predicted, 2)


@pytest.fixture(params=[0, 1, 2, 8], ids=lambda depth: f"depth{depth}")
def sizes(request):
    return [6, *[5] * request.param, 3]


def layers_of(sizes, replicas):
    flat = torch.zeros(replicas, parameters_of(sizes), dtype=torch.float64)
    layers = layer_views(flat, sizes)
    initialise(layers, [generator(seed) for seed in range(replicas)])
    for _, bias in layers:
        bias.uniform_(-0.2, 0.5, generator=generator())
    return layers


def plain_hidden(layers, replica, x):
    """What each layer gets, by torch's own functions."""
    inputs = [x]
    for weight, bias in layers[:-1]:
        inputs.append(functional.relu(inputs[-1] @ weight[replica] + bias[replica]))
    return inputs


@pytest.mark.parametrize("replicas", [1, 3])
def test_norms_are_those_of_autograd(sizes, replicas):
    layers = layers_of(sizes, replicas)
    x = torch.randn(20, 6, generator=generator(9), dtype=torch.float64)
    labels = torch.randint(3, (20,), generator=generator(10))
    before = [(w.clone(), b.clone()) for w, b in layers]
    found = gradient_norms(layers, x, labels)
    assert found.shape == (replicas, len(sizes) - 1)
    for replica in range(replicas):
        leaves = [(w.clone().requires_grad_(), b) for w, b in layers]
        last = plain_hidden(leaves, replica, x)[-1]
        z = last @ leaves[-1][0][replica] + leaves[-1][1][replica]
        functional.cross_entropy(z, labels).backward()
        expected = [w.grad[replica].square().sum().sqrt().item() for w, _ in leaves]
        assert min(expected) > 0
        # Nine layers, sums of at most 20 terms each, without much cancellation: some hundred eps.
        assert found[replica].tolist() == pytest.approx(expected, rel=1000 * EPS, abs=0)
    for (w, b), (w0, b0) in zip(layers, before, strict=True):
        assert torch.equal(w, w0)
        assert torch.equal(b, b0)


def test_norms_need_a_label_for_each_image():
    with pytest.raises(ValueError, match=re.escape("labels must lie in [0, 3), got 3")):
        gradient_norms(layers_of([6, 3], 1), torch.zeros(2, 6).double(), torch.tensor([0, 3]))


@pytest.mark.parametrize("replicas", [1, 3])
def test_similarities_are_those_of_all_pairs(sizes, replicas):
    layers = layers_of(sizes, replicas)
    x = torch.randn(12, 6, generator=generator(9), dtype=torch.float64)
    x[3] = 0.0
    found = similarities(layers, x)
    assert found.shape == (replicas, len(sizes) - 1)
    for replica in range(replicas):
        for layer, inputs in enumerate(plain_hidden(layers, replica, x)):
            cosines = [
                float(functional.cosine_similarity(inputs[i], inputs[j], dim=0))
                for i in range(12)
                for j in range(12)
                if i != j
            ]
            # Means of 132 numbers up to 1.
            assert found[replica, layer].item() == pytest.approx(
                math.fsum(cosines) / len(cosines), rel=0, abs=1000 * EPS
            )


def test_at_initialisation_similarities_grow_as_in_wide_networks():
    """The cosine after a wide layer with ReLUs is (sin a + (pi - a) cos a) / pi for an angle a.

    Reference: Cho and Saul, "Kernel methods for deep learning", 2009, equation 6 for n = 1.
    """
    width = 4000
    layers = layer_views(torch.zeros(1, parameters_of([2, width, width, 2])), [2, width, width, 2])
    initialise(layers, [generator()])
    angle = 2.0
    x = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])
    for found in similarities(layers, x)[0].tolist():
        # The mean over `width` units of products with a standard deviation of about 1.
        assert found == pytest.approx(math.cos(angle), abs=5 / math.sqrt(width))
        angle = math.acos((math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi)


def test_one_image_is_like_no_other():
    with pytest.raises(ValueError, match="a similarity needs at least 2 images, got 1"):
        similarities(layers_of([6, 3], 1), torch.zeros(1, 6).double())
