"""Views, encoder and training of instance discrimination."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from isoparam.sampled_study.instance import (
    Probe,
    _draw_images,
    _full_step,
    encoder,
    train_instances,
)
from isoparam.sampled_study.recipes import InstanceRecipe
from isoparam.sampled_study.views import Views

RECIPE = InstanceRecipe(
    hidden=32,
    features=16,
    images="uniform",
    weighting="importance",
    samples=64,
    exponent=0.75,
    epochs=2,
    batch_size=32,
    learning_rate=0.1,
    class_rate=10.0,
    warmup=0.1,
    momentum=0.9,
    evaluations=2,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(count=200, side=8):
    return torch.randint(256, (count, side * side), dtype=torch.uint8, generator=generator())


def train(state=None, on_state=lambda _: None, **changes: Any):
    views = Views(random_images(), shift=1, noise=0.1)
    recipe = replace(RECIPE, **changes)
    probe = Probe(views, 100, recipe.images, seed=0, held_out=False)
    return train_instances(views, probe, recipe, seed=0, state=state, on_state=on_state)


def test_views_without_shift_and_noise_are_the_normalised_images():
    images = random_images()
    views = Views(images, shift=0, noise=0.0)(torch.tensor([3, 0, 3]), generator())
    expected = (images.float() - images.float().mean()) / images.float().std(correction=0)
    assert torch.allclose(views, expected[[3, 0, 3]], atol=1e-5)


def test_views_are_shifted_by_all_offsets_equally_often():
    image = torch.zeros(1, 16, 16, dtype=torch.uint8)
    image[0, 5, 9] = 255
    views = Views(image.flatten(1), shift=2, noise=0.0)
    drawn = views(torch.zeros(10_000, dtype=torch.int64), generator())
    places = torch.bincount(drawn.argmax(1), minlength=256).view(16, 16)
    counts = places[3:8, 7:12]
    assert counts.sum() == 10_000
    # 25 cells of 400 expected, each with a standard deviation below 20: six of them.
    assert (counts - 400).abs().max() < 120


def test_noise_has_the_given_deviation():
    images = random_images()
    ids = torch.arange(200)
    noise = Views(images, shift=0, noise=0.5)(ids, generator()) - Views(images, shift=0, noise=0.0)(
        ids, generator()
    )
    # 12,800 values: the error of the deviation is 0.5 / sqrt(25,600) = 0.003.
    assert noise.std().item() == pytest.approx(0.5, abs=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.03)


def test_a_shift_is_at_most_an_eighth_of_the_side():
    images = random_images(side=8)
    ids = torch.arange(200)
    small, large = (Views(images, shift=s, noise=0.3)(ids, generator()) for s in (1, 5))
    assert torch.equal(small, large)


def test_images_must_be_square():
    with pytest.raises(ValueError, match="images must be square, got 12 pixels"):
        Views(torch.zeros(2, 12, dtype=torch.uint8), shift=1, noise=0.1)


def test_the_full_step_is_that_of_autograd():
    x, weight = torch.randn(2, 6, 4, generator=generator()).double()
    weight = torch.cat([weight, weight + 1])  # (12, 4)
    target = torch.tensor([0, 3, 3, 7, 11, 2])
    leaf, rows = x.clone().requires_grad_(), weight.clone().requires_grad_()
    F.cross_entropy(leaf @ rows.T, target).backward()
    gradient = _full_step(x, updated := weight.clone(), target, rate=0.5)
    assert torch.allclose(gradient, leaf.grad, atol=1e-14)
    assert torch.allclose(updated, weight - 0.5 * rows.grad, atol=1e-14)


def test_held_out_views_are_others():
    views = Views(random_images(), shift=1, noise=0.1)
    report, choose = (Probe(views, 50, "uniform", seed=0, held_out=held) for held in (False, True))
    assert len(report.ids) == len(report.ids.unique()) == 50
    assert not torch.equal(report.ids, choose.ids)
    assert not torch.isclose(report.views[:, None], choose.views).all(2).any()


def test_zipf_draws_follow_the_law():
    drawn = _draw_images(10_000, "zipf", generator())
    first = (drawn == 0).double().mean().item()
    expected = torch.log(torch.tensor(2.0)).item() / torch.log(torch.tensor(10_001.0)).item()
    assert first == pytest.approx(expected, abs=0.015)  # a deviation is 0.0026


@pytest.mark.parametrize("weighting", ["full", "importance", "stated", "none"])
@pytest.mark.parametrize("law", ["uniform", "zipf"])
def test_two_runs_give_the_same_bits(weighting, law):
    first, second = (train(weighting=weighting, images=law) for _ in range(2))
    assert first == second
    assert [evaluation.epoch for evaluation in first] == [1, 2]


@pytest.mark.parametrize("weighting", ["full", "importance"])
@pytest.mark.parametrize("law", ["uniform", "zipf"])
def test_a_training_resumes_bit_identically_after_each_epoch(weighting, law):
    changes = {"weighting": weighting, "images": law, "epochs": 3, "evaluations": 2}
    states, ends = [], []
    whole = train(on_state=lambda state: states.append(deepcopy(state)), **changes)
    for state in states:
        last = {}
        assert train(deepcopy(state), last.update, **changes) == whole
        ends.append(last or state)
    for end in ends:
        assert end.keys() == states[-1].keys()
        for name, tensor in end.items():
            assert torch.equal(tensor.nan_to_num(), states[-1][name].nan_to_num()), name


def test_more_samples_than_classes_do_not_fail():
    assert train(samples=1000)[-1].loss > 0


def test_importance_learns_and_the_stated_form_hardly_does():
    changes = {"epochs": 60, "evaluations": 1, "class_rate": 20.0}
    full, importance, stated = (
        train(**changes, weighting=weighting)[0] for weighting in ("full", "importance", "stated")
    )
    # Chance is 0.005 and a loss of log(200).
    assert full.accuracy > 0.6
    assert importance.accuracy > 0.6
    assert importance.loss < 3
    assert stated.accuracy < 0.1
    assert stated.loss > 5


def test_evaluations_are_spread_evenly_up_to_the_end():
    assert [e.epoch for e in train(epochs=5, evaluations=2)] == [3, 5]
    assert [e.epoch for e in train(epochs=2, evaluations=8)] == [1, 2]


def test_a_batch_larger_than_the_set_is_an_error():
    with pytest.raises(ValueError, match="batch_size must be at most 200, the number of images"):
        train(batch_size=500)


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match=r"not finite after epoch \d+: lower the learning rate"):
        train(learning_rate=1e30, weighting="full")


def test_initial_weights_depend_on_the_generator_alone():
    torch.manual_seed(1)
    first = encoder(16, 8, 4, generator())[0].weight
    torch.manual_seed(2)
    assert torch.equal(first, encoder(16, 8, 4, generator())[0].weight)
