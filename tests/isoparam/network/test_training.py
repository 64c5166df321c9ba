"""Training against a plain reference, replica against replica, and each way it can be refused."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from isoparam.budget import parameters_of
from isoparam.network import training
from isoparam.network.mlp import layer_views
from isoparam.network.recipe import Recipe
from isoparam.network.replicas import Replicas
from isoparam.network.training import Epoch, Training, evaluate, learning_rate_at

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=200)

RECIPE = Recipe(
    sizes=(5, 3),
    epochs=2,
    batch_size=4,
    learning_rate=0.1,
    warmup=0.3,
    momentum=0.9,
    weight_decay=0.01,
)


def train(x, labels, validation, recipe, seeds, on_epoch=lambda _: None):
    """Train to the end: the layers and the history."""
    training = Training(x, labels, validation, recipe, seeds)
    while not training.done:
        on_epoch(training.run_epoch())
    return training.layers, training.history


def recipe_of(depth, **changes: object):
    return replace(RECIPE, sizes=(5, *[6] * depth, 3), **changes)


def images(count, inputs=5, classes=3, seed=0):
    """Random images, and labels among which each class is."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, inputs, generator=generator), torch.arange(count) % classes


def plain_logits(flat, sizes, x, *, skips=False):
    """The perceptron of one replica by torch's own functions."""
    layers = layer_views(flat[None], sizes)
    for index, (weight, bias) in enumerate(layers[:-1]):
        output = functional.relu(functional.linear(x, weight[0].T, bias[0, 0]))
        x = x + output if skips and index else output
    return functional.linear(x, layers[-1][0][0].T, layers[-1][1][0, 0])


def plain_step(state, sizes, batch, eta, momentum, decay):
    """v <- momentum v + dl/dw + lambda w, w <- w - eta v, with dl/dw by autograd."""
    flat, velocity = state
    leaf = flat.clone().requires_grad_()
    loss = functional.cross_entropy(plain_logits(leaf, sizes, batch[0]), batch[1])
    (gradient,) = torch.autograd.grad(loss, leaf)
    velocity = momentum * velocity + gradient + decay * flat
    return loss.detach(), flat - eta * velocity, velocity if momentum else 0 * velocity


def step_tolerances(state, sizes, x, eta, momentum, decay, u):
    """What rounding in units of u may change in the loss, the weights and the velocity of one step.

    The logits and the gradients are sums of products. With all numbers replaced by their absolute
    values these sums become the magnitudes Z and G, and each product passes through at most as
    many roundings as there are terms in the sums above it: `terms` in all. The probabilities lose
    2 Z terms u by the logits and C + 6 u by themselves, which the gradient, linear in them,
    carries on as that share of G.
    """
    flat, velocity = (tensor.abs() for tensor in state)
    leaf = flat.clone().requires_grad_()
    logits = plain_logits(leaf, sizes, x.abs())  # (B, C)
    # No entry of p - y is more than 1, and the mean divides by B.
    (magnitude,) = torch.autograd.grad(logits.sum() / len(x), leaf)
    terms = 2 * sum(fan_in + 1 + fan_out for fan_in, fan_out in pairwise(sizes)) + len(x)
    largest = float(logits.detach().max())
    off = (2 * largest * terms + sizes[-1] + 6) * u
    by_gradient = (off + terms * u) * magnitude
    # The sums that make velocity and weight are three, each of numbers no larger than these.
    summed = momentum * velocity + magnitude + decay * flat
    by_velocity = by_gradient + 4 * u * summed
    by_weight = eta * by_velocity + 4 * u * (flat + eta * summed)
    by_loss = torch.tensor(off + (2 * largest + len(x) + 6) * u * (1 + largest))
    return by_loss, by_weight, by_velocity


@pytest.fixture
def unit(request):
    """The unit of rounding of new tensors, those of the replicas among them."""
    torch.set_default_dtype(request.param)
    yield torch.finfo(request.param).eps / 2
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.9, 0.1)])
@pytest.mark.parametrize(
    ("depth", "unit"),
    # The bounds grow with the depth: at 8 those of float32 would let anything pass.
    [(depth, torch.float32) for depth in (0, 1, 2)]
    + [(depth, torch.float64) for depth in (0, 1, 2, 8)],
    indirect=["unit"],
)
def test_each_of_several_steps_is_that_of_the_plain_formula(depth, momentum, decay, unit):
    recipe, seeds, B = recipe_of(depth, momentum=momentum, weight_decay=decay), [0, 5, 2], 7
    sizes, replicas = recipe.sizes, Replicas(recipe, seeds)
    generator = torch.Generator().manual_seed(depth)
    velocity = torch.zeros_like(replicas.flat)
    for eta in (0.05, 0.2, 0.1, 0.0, 0.3):
        x = torch.randn(len(seeds), B, sizes[0], generator=generator)
        labels = torch.randint(sizes[-1], (len(seeds), B), generator=generator)
        before = replicas.flat.double().clone(), velocity.double()
        losses = replicas.step(x, labels, eta)
        velocity = replicas.velocity.clone()
        results = losses.double(), replicas.flat.double(), velocity.double()
        for replica in range(len(seeds)):
            state = before[0][replica], before[1][replica]
            wide = x[replica].double()
            expected = plain_step(state, sizes, (wide, labels[replica]), eta, momentum, decay)
            # The reference, in float64, rounds as well.
            bounds = step_tolerances(state, sizes, wide, eta, momentum, decay, 2 * unit)
            for result, value, bound in zip(results, expected, bounds, strict=True):
                assert bool(((result[replica] - value).abs() <= bound).all())
                assert float(bound.max()) < 1e-2
            assert not eta or bool((expected[1] != state[0]).any())


@pytest.mark.parametrize("skips", [False, True])
def test_steps_are_those_of_torch_optim(skips):
    """The same numbers as PyTorch's own, whose import takes seconds: here alone."""
    recipe = recipe_of(3, weight_decay=0.1, skips=skips)
    replicas = Replicas(recipe, [3])
    leaf = replicas.flat[0].clone().requires_grad_()
    optimizer = torch.optim.SGD([leaf], lr=0.1, momentum=0.9, weight_decay=0.1)
    x, labels = images(8)
    for _ in range(20):
        replicas.step(x[None], labels[None], 0.1)
        optimizer.zero_grad()
        z = plain_logits(leaf, recipe.sizes, x, skips=skips)
        functional.cross_entropy(z, labels).backward()
        optimizer.step()
    torch.testing.assert_close(replicas.flat[0], leaf.detach())
    loss, _ = evaluate(replicas.layers, x, labels, skips=skips)
    z = plain_logits(leaf, recipe.sizes, x, skips=skips)
    torch.testing.assert_close(loss.item(), functional.cross_entropy(z, labels).item())


ADVERSARIAL = 0.7


def plain_shift(flat, sizes, x, labels):
    """Up the slope of each image's loss, by autograd; nowhere if it has none."""
    leaf = x.clone().requires_grad_()
    loss = functional.cross_entropy(plain_logits(flat, sizes, leaf), labels, reduction="sum")
    (slope,) = torch.autograd.grad(loss, leaf)
    return ADVERSARIAL * functional.normalize(slope, eps=1e-300)


@pytest.mark.parametrize("unit", [torch.float64], indirect=True)
@pytest.mark.usefixtures("unit")
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_adversarial_steps_are_those_of_the_plain_formulas(depth):
    recipe, seeds, size, eta = recipe_of(depth, adversarial=ADVERSARIAL), [0, 5], 7, 0.1
    sizes, replicas = recipe.sizes, Replicas(recipe, seeds)
    generator = torch.Generator().manual_seed(depth)
    flat, velocity = replicas.flat.clone(), torch.zeros_like(replicas.flat)
    for _ in range(14):
        x = torch.randn(len(seeds), size, sizes[0], generator=generator)
        labels = torch.randint(sizes[-1], (len(seeds), size), generator=generator)
        given = x.clone()
        losses = replicas.step(x, labels, eta)
        assert torch.equal(x, given)  # the caller's is left as it was
        for replica in range(len(seeds)):
            state, y = (flat[replica], velocity[replica]), labels[replica]
            harder = x[replica] + plain_shift(flat[replica], sizes, x[replica], y)
            loss, flat[replica], velocity[replica] = plain_step(
                state, sizes, (harder, y), eta, recipe.momentum, recipe.weight_decay
            )
            torch.testing.assert_close(losses[replica], loss)
        torch.testing.assert_close(replicas.flat, flat, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(replicas.velocity, velocity, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("depth", [0, 2])
def test_a_learning_rate_of_zero_changes_no_weight(depth):
    replicas = Replicas(recipe_of(depth, weight_decay=0.5), [0])
    before = replicas.flat.clone()
    x, labels = images(4)
    replicas.step(x[None], labels[None], 0.0)
    assert torch.equal(replicas.flat, before)


@pytest.mark.parametrize("unit", [torch.float64], indirect=True)
@pytest.mark.usefixtures("unit")
@pytest.mark.parametrize("adversarial", [0.0, ADVERSARIAL])
@pytest.mark.parametrize("depth", [0, 1, 2, 8])
def test_replicas_together_are_the_replicas_apart(depth, adversarial):
    arguments = (*images(18), images(10, seed=1), recipe_of(depth, adversarial=adversarial))
    together, history = train(*arguments, [3, 0, 8])
    # Rounding starts at 1e-16, and may grow tenfold at each of the 8 steps. Another seed or another
    # order of the images would change the first digit.
    bound = {"rtol": 1e-8, "atol": 1e-8}
    for replica, seed in enumerate([3, 0, 8]):
        alone, by_itself = train(*arguments, [seed])
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[0][replica], theirs[0][0], **bound)
            torch.testing.assert_close(ours[1][replica], theirs[1][0], **bound)
        for ours, theirs in zip(history, by_itself, strict=True):
            assert ours.train_loss[replica] == pytest.approx(theirs.train_loss[0], rel=1e-8)
            assert ours.validation_loss[replica] == pytest.approx(
                theirs.validation_loss[0], rel=1e-8
            )


@pytest.mark.parametrize("depth", [0, 1, 2, 8])
def test_the_same_seeds_give_the_same_bits(depth):
    arguments = (*images(18), images(10, seed=1), recipe_of(depth))
    runs = [train(*arguments, [1, 4]) for _ in range(2)]
    (first, history), (second, history_again) = runs
    assert history == history_again
    assert all(
        torch.equal(ours, theirs)
        for pair in zip(first, second, strict=True)
        for ours, theirs in zip(*pair, strict=True)
    )


def test_training_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    train(*images(18), images(10), recipe_of(1), [0])
    assert torch.equal(torch.get_rng_state(), state)


class Spy(Replicas):
    """Keeps the numbers of the images of each batch, (R, B), and the losses, (R,)."""

    numbers: list[torch.Tensor]
    losses: list[torch.Tensor]

    def step(self, x, labels, learning_rate):
        self.numbers.append(x[..., 0].long())
        self.losses.append(super().step(x, labels, learning_rate))
        return self.losses[-1]


@pytest.fixture
def spy(monkeypatch):
    monkeypatch.setattr(training, "Replicas", Spy)
    return Spy


def batches_of(spy, seeds, depth=0, count=10, on_epoch=lambda _: None, **changes: object):
    """Train on images whose first pixel is their number.

    Returns the numbers in each batch, (steps, R, B), the losses, (steps, R), and the history.
    """
    spy.numbers, spy.losses = [], []
    x, labels = images(count)
    x[:, 0] = torch.arange(count)
    # The numbers are large for pixels, and the rate is small to match.
    recipe = recipe_of(depth, **{"learning_rate": 1e-6, "epochs": 3} | changes)
    _, history = train(x, labels, (x, labels), recipe, seeds, on_epoch)
    return torch.stack(spy.numbers), torch.stack(spy.losses).double(), history


def test_the_order_of_the_images_depends_on_the_seed_alone(spy):
    order, _, _ = batches_of(spy, [3])
    for depth in (1, 2, 8):
        assert torch.equal(batches_of(spy, [3], depth)[0], order)
    assert torch.equal(batches_of(spy, [7, 3, 0])[0][:, 1:2], order)
    assert torch.equal(batches_of(spy, [3], momentum=0.0, weight_decay=0.5)[0], order)
    assert not torch.equal(batches_of(spy, [4])[0], order)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (12, 4), (8, 8), (9, 1)])
def test_an_epoch_shows_each_image_at_most_once(spy, count, batch_size):
    epochs, whole = 3, count - count % batch_size
    order, _, _ = batches_of(spy, [0, 1], count=count, epochs=epochs, batch_size=batch_size)
    assert order.shape == (epochs * (count // batch_size), 2, batch_size)
    by_epoch = order.view(epochs, -1, 2, batch_size).transpose(1, 2).flatten(2)  # (epochs, R, N)
    shown = [sorted(set(row.tolist())) for row in by_epoch.flatten(0, 1)]
    assert all(len(numbers) == whole for numbers in shown)
    assert all(set(numbers) <= set(range(count)) for numbers in shown)
    # Another permutation in each epoch and for each seed.
    assert len({tuple(row.tolist()) for row in by_epoch.flatten(0, 1)}) == epochs * 2


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("seeds", [[0], [4, 1, 0]])
def test_history_has_one_record_for_each_epoch(spy, seeds, epochs):
    reported = []
    _, losses, history = batches_of(spy, seeds, epochs=epochs, on_epoch=reported.append)
    assert [record.epoch for record in history] == list(range(1, epochs + 1))
    assert reported == history
    means = losses.view(epochs, -1, len(seeds)).mean(1)  # (epochs, R)
    for record, mean in zip(history, means, strict=True):
        assert isinstance(record, Epoch)
        assert len(record.train_loss) == len(seeds)
        # A sum of two numbers has one rounding, whatever computes it.
        assert record.train_loss == mean.tolist()
        assert len(record.validation_loss) == len(record.validation_accuracy) == len(seeds)
        assert all(0 <= accuracy <= 1 for accuracy in record.validation_accuracy)


def test_last_record_evaluates_the_layers_that_are_returned():
    validation = images(11, seed=1)
    layers, history = train(*images(18), validation, recipe_of(2), [0, 1])
    loss, accuracy = evaluate(layers, *validation)
    assert history[-1].validation_loss == loss.tolist()
    assert history[-1].validation_accuracy == accuracy.tolist()


@pytest.mark.parametrize("seeds", [[0, 1, 2]])
@pytest.mark.parametrize(("depth", "share"), [(0, 0.75), (1, 1.0), (2, 1.0), (8, 1.0)])
def test_the_exclusive_or_is_learned_with_a_hidden_layer_and_only_so(depth, share, seeds):
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    labels = torch.tensor([0, 1, 1, 0])
    _, history = train(
        corners.repeat(8, 1),
        labels.repeat(8),
        (corners, labels),
        replace(
            RECIPE,
            sizes=(2, *[16] * depth, 2),
            epochs=100,
            batch_size=8,
            learning_rate=0.05,
            weight_decay=0.0,
        ),
        seeds,
    )
    # A straight line has at most three of the four corners on their right sides.
    assert all(
        accuracy == share if depth else accuracy <= share
        for accuracy in history[-1].validation_accuracy
    )
    if depth:
        assert max(history[-1].train_loss) < 0.1 * min(history[0].train_loss)


@pytest.mark.parametrize(
    ("steps", "warmup", "rates"),
    [
        (1, 0.0, [1.0]),
        (1, 0.9, [1.0]),
        (2, 0.0, [1.0, 1.0]),
        (2, 0.5, [1.0, 1.0]),
        (4, 0.0, [1.0, 1.0, 2 / 3, 1 / 3]),
        (5, 0.4, [0.5, 1.0, 1.0, 2 / 3, 1 / 3]),
        (4, 0.99, [0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_learning_rate_of_short_trainings(steps, warmup, rates):
    assert [learning_rate_at(step, steps, 1.0, warmup) for step in range(steps)] == rates


@FIXED
@given(
    steps=st.integers(1, 400),
    warmup=st.floats(0, 1, exclude_max=True),
    peak=st.floats(1e-6, 1e6),
)
def test_learning_rate_rises_to_its_peak_and_falls(steps, warmup, peak):
    rates = [learning_rate_at(step, steps, peak, warmup) for step in range(steps)]
    top = rates.index(peak)
    assert max(rates) == peak
    assert min(rates) > 0
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    # The rise takes its share of the steps, to the nearest whole step and at least one.
    assert abs(top + 1 - max(1, warmup * steps)) <= 0.5


@FIXED
@given(steps=st.integers(2, 400), warmup=st.floats(0, 0.99), peak=st.floats(1e-6, 1e6))
def test_learning_rate_rises_and_falls_by_equal_steps(steps, warmup, peak):
    rates = [learning_rate_at(step, steps, peak, warmup) for step in range(steps)]
    rise = rates.index(peak) + 1
    # Each rate is off by three roundings of numbers up to the peak, a difference by twice that.
    bound = 6 * peak * 2**-53
    assert all(abs(b - a - peak / rise) <= bound for a, b in pairwise([0.0, *rates[:rise]]))
    fall = [*rates[rise:], 0.0]
    assert all(abs(a - b - peak / max(1, steps - rise)) <= bound for a, b in pairwise(fall))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_evaluation_is_the_direct_computation(depth):
    # Layers of the unit matrix: on non-negative images the logits are the pixels, or their
    # negative with the last layer's sign turned.
    sizes = [3] * (depth + 2)
    flat = torch.zeros(2, parameters_of(sizes))
    for weight, _ in layer_views(flat, sizes):
        weight.copy_(torch.eye(3).expand(2, 3, 3))
    layer_views(flat, sizes)[-1][0][1].neg_()
    x = torch.tensor([[3.0, 1.0, 0.5], [0.0, 0.25, 2.0], [1.0, 0.0, 4.0], [0.5, 5.0, 1.0]])
    labels = torch.tensor([0, 2, 1, 1])
    loss, accuracy = evaluate(layer_views(flat, sizes), x, labels)
    assert loss.dtype == accuracy.dtype == torch.float64
    assert accuracy.tolist() == [0.75, 0.25]
    for replica, sign in enumerate([1, -1]):
        expected = functional.cross_entropy(sign * x.double(), labels)
        # In units of rounding of float64: numbers up to 10 in sums of 3 classes and 4 images.
        assert float(loss[replica]) == pytest.approx(float(expected), abs=100 * 2**-53)


def test_evaluation_of_more_images_than_a_chunk_is_the_mean_of_all():
    x, labels = images(2_500)
    flat = Replicas(RECIPE, [0]).flat
    loss, accuracy = evaluate(layer_views(flat, [5, 3]), x, labels)
    # Logits are sums of 6 terms in float32, and the loss follows them at most twice as fast.
    z = plain_logits(flat[0].double(), [5, 3], x.double())
    bound = (
        6
        * torch.finfo(torch.float32).eps
        * float(plain_logits(flat[0].abs(), [5, 3], x.abs()).max())
    )
    assert float(loss) == pytest.approx(float(functional.cross_entropy(z, labels)), abs=bound)
    # Beyond the images whose two greatest logits are nearer to each other than their error.
    top = z.topk(2).values
    doubtful = int((top[:, 0] - top[:, 1] <= bound).sum())
    rightly = int((z.argmax(1) == labels).sum())
    assert abs(float(accuracy) * len(x) - rightly) <= doubtful + 0.5


X, Y = images(8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 9}, "batch_size must be in [1, 8], the number of images, got 9"),
        ({"x": X[:, :4]}, "training images must be of shape (N, 5) with N labels, got (8, 4)"),
        ({"x": X[0]}, "training images must be of shape (N, 5) with N labels, got (5,)"),
        (
            {"x": X[:7]},
            "training images must be of shape (N, 5) with N labels, got (7, 5) and (8,)",
        ),
        ({"x": X[:0], "labels": Y[:0]}, "training images must be of shape (N, 5) with N labels"),
        ({"labels": Y + 1}, "training labels must lie in [0, 3), got 3"),
        ({"labels": Y - 1}, "training labels must lie in [0, 3), got -1"),
        ({"validation": (X[:, :4], Y)}, "validation images must be of shape (N, 5)"),
        ({"validation": (X[:0], Y[:0])}, "validation images must be of shape (N, 5)"),
        ({"validation": (X, Y + 255)}, "validation labels must lie in [0, 3), got 255"),
        (
            {"learning_rate": 1e30, "epochs": 9},
            "the loss is not finite in epoch 1: lower the learning rate, now 1e+30",
        ),
        # The training loss is that of before each update: here only the last update diverges.
        pytest.param(
            {"learning_rate": 3e38, "epochs": 1, "batch_size": 8},
            "not finite in epoch 1",
        ),
        pytest.param(
            {"batch_size": 0},
            "batch_size must be",
        ),
        pytest.param(
            {"labels": Y[:, None]},
            "training images must be of shape (N, 5) with N labels",
        ),
        pytest.param(
            {"validation": (X, Y[:, None])},
            "validation images must be of shape (N, 5) with N labels",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(change, message):
    data = {"x": X, "labels": Y, "validation": (X, Y)}
    given = {name: change.get(name, value) for name, value in data.items()}
    recipe = recipe_of(1, **{name: value for name, value in change.items() if name not in data})
    with pytest.raises(ValueError, match=re.escape(message)):
        train(**given, recipe=recipe, seeds=[0])


def test_divergence_is_reported_before_the_epoch_is_reported():
    reported = []
    with pytest.raises(ValueError, match="not finite in epoch 1"):
        train(*images(8), images(8), recipe_of(1, learning_rate=1e30), [0], reported.append)
    assert reported == []


def test_evaluation_refuses_labels_out_of_range():
    layers = layer_views(torch.zeros(1, parameters_of([5, 3])), [5, 3])
    with pytest.raises(ValueError, match=re.escape("labels must lie in [0, 3), got 3")):
        evaluate(layers, torch.zeros(2, 5), torch.tensor([0, 3]))


@pytest.mark.parametrize("adversarial", [0.0, ADVERSARIAL])
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_a_training_resumes_to_the_same_bits(depth, stop, adversarial):
    recipe = recipe_of(depth, epochs=3, adversarial=adversarial)
    arguments = (*images(18), images(10, seed=1), recipe, [1, 4])
    whole, first, second = (Training(*arguments) for _ in range(3))
    while not whole.done:
        whole.run_epoch()
    for _ in range(stop):
        first.run_epoch()
    second.restore(first.state())
    assert second.history == first.history
    while not second.done:
        second.run_epoch()
    assert second.history == whole.history
    ours, theirs = second.state(), whole.state()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_state_is_all_that_changes(precision):
    """What a state does not hold, the rounded weights, is made anew: spoil it."""
    recipe = recipe_of(2, adversarial=ADVERSARIAL, precision=precision)
    clean, spoilt = (Training(*images(18), images(10), recipe, [3]) for _ in range(2))
    clean.run_epoch()
    spoilt._replicas._operands.fill_(float("nan"))
    spoilt.restore(clean.state())
    assert clean.run_epoch() == spoilt.run_epoch()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_steps_in_bfloat16_are_those_of_float32_but_for_rounding(depth):
    """Rounding to 8 bits is 0.4 %; of what random signs leave of the sums, a few times as much."""
    x, labels = images(32)
    results = []
    for precision in ("float32", "bfloat16"):
        replicas = Replicas(recipe_of(depth, weight_decay=0.1, precision=precision), [0])
        start = replicas.flat.clone()
        for _ in range(10):
            replicas.step(x[None].to(replicas.dtype), labels[None], 0.05)
        assert replicas.flat.dtype == replicas.velocity.dtype == torch.float32
        results.append(replicas.flat - start)
    exact, rounded = results
    off = float((rounded - exact).norm() / exact.norm())
    assert 0 < off < 0.03


@pytest.mark.parametrize(
    "change",
    [
        {"weights": torch.zeros(1, 3)},
        {"velocity": torch.zeros(1, 18, dtype=torch.float64)},
        {"orders": torch.zeros(1, 8, dtype=torch.uint8)},
        {"history": torch.zeros(1, 3, 2, dtype=torch.float64)},
        {"history": torch.zeros(3, 3, 1, dtype=torch.float64)},
        {"more": torch.zeros(1)},
    ],
)
def test_a_state_of_another_training_is_refused(change):
    training = Training(*images(8), images(8), RECIPE, [0])
    before = training.state()["weights"].clone()
    with pytest.raises(ValueError, match="this state is of another training"):
        training.restore(training.state() | change)
    assert torch.equal(training.state()["weights"], before)


def test_a_state_that_lacks_something_is_refused():
    training = Training(*images(8), images(8), RECIPE, [0])
    for name in training.state():
        state = training.state()
        del state[name]
        with pytest.raises(ValueError, match="this state is of another training"):
            training.restore(state)


def test_there_is_nothing_after_the_last_epoch():
    training = Training(*images(8), images(8), RECIPE, [0])
    for _ in range(RECIPE.epochs):
        training.run_epoch()
    with pytest.raises(ValueError, match="all 2 epochs are done"):
        training.run_epoch()
