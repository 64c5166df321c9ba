"""A linear softmax classifier trained on the label and K sampled other classes.

At C = 10 the sampled softmax saves nothing: what it changes can be compared with the full one.
"""

from collections.abc import Callable
from math import inf, isfinite, log
from typing import NamedTuple

import torch
from torch import Tensor

from isoparam.network.mlp import Layers
from isoparam.network.randomness import Stream, stream_of
from isoparam.network.softmax import classifier_gradients
from isoparam.network.training import DivergenceError, evaluate, steps_of
from isoparam.sampled_softmax.checks import check_classes
from isoparam.sampled_softmax.draws import Samples
from isoparam.sampled_softmax.loss import sampled_linear_cross_entropy
from isoparam.sampled_softmax.samplers import UniformSampler
from isoparam.sampled_study.recipes import LinearRecipe

# Tensors by name, from which a training resumes.
State = dict[str, Tensor]


class Evaluation(NamedTuple):
    """Loss and accuracy after an epoch, under the full softmax.

    Attributes:
        epoch: number of the epoch, from 1.
        loss: mean negative log-likelihood over all classes, in nats.
        accuracy: share of inputs whose class has the greatest logit of all, in [0, 1].
    """

    epoch: int
    loss: float
    accuracy: float


def restore(state: State, kept: State, generators: dict[str, torch.Generator]) -> None:
    """Bring tensors, in place, and generators back to a state."""
    for name, tensor in kept.items():
        tensor.copy_(state[name])
    for name, generator in generators.items():
        generator.set_state(state[name].clone())


def other_classes(
    num_samples: int, target: Tensor, num_classes: int, generator: torch.Generator | None = None
) -> Samples:
    """Draw K distinct classes for each example, all but its own equally likely.

    With K = C - 1 they are all the others, and the importance weights are 1.

    The draws are written as weights on all classes, 0 for those not drawn: with few classes one
    matrix product is cheaper than gathering rows for each example.

    Args:
        num_samples: K, in [1, C - 1].
        target: (B,), int64, each in [0, C).
        num_classes: C, 2 or more.
        generator: source of randomness; PyTorch's own if None.

    Returns:
        The ids of all classes, (C,), and for each example the inclusion probability K / (C - 1),
        infinity for what is not drawn, and q_j C / K with q_j = 1 / (C - 1), 0 for what is not
        drawn, (B, C). So the importance weights are (C - 1) / K and the stated ones q_j / K: the
        loss divides the latter by the number of ids, which is C here. The other weightings of
        the loss do not support this draw.

    Raises:
        ValueError: if K or a target is out of range, or `target` is not a vector of int64.

    Example:
        >>> other_classes(2, torch.tensor([0, 1, 2]), 3).log_expected_counts.exp()
        tensor([[inf, 1., 1.],
                [1., inf, 1.],
                [1., 1., inf]], dtype=torch.float64)
    """
    if not 1 <= num_samples < num_classes:
        raise ValueError(
            f"{num_classes} classes leave 1 to {num_classes - 1} others to sample, "
            f"got samples {num_samples}"
        )
    if target.ndim != 1 or target.dtype != torch.int64:
        raise ValueError(
            f"target must be int64 of shape (B,), got {target.dtype} of shape {tuple(target.shape)}"
        )
    check_classes("target", target, num_classes)
    sampler = UniformSampler(num_classes - 1, replacement=False)
    draw = sampler.sample(num_samples, target, per_example=True, generator=generator)
    # The sampler numbers the other classes from 0; those from the label on move up by one.
    ids = draw.ids + (draw.ids >= target[:, None]).long()  # (B, K)
    nothing = draw.log_probs.new_full((len(target), num_classes), -inf)  # (B, C)
    return Samples(
        torch.arange(num_classes),
        nothing.scatter(1, ids, draw.log_probs + log(num_classes / num_samples)),
        (-nothing).scatter(1, ids, draw.log_expected_counts),
        draw.target_log_expected_counts,
    )


def train_linear(
    x: Tensor,
    labels: Tensor,
    validation: tuple[Tensor, Tensor],
    recipe: LinearRecipe,
    *,
    classes: int,
    seed: int,
    on_epoch: Callable[[Evaluation], None] = lambda _: None,
    state: State | None = None,
    on_state: Callable[[State], None] = lambda _: None,
) -> tuple[Layers, list[Evaluation]]:
    """Train a linear classifier by stochastic gradient descent, from zero weights.

    The order of the images depends on the seed alone: every weighting sees the same batches.

    Args:
        x: (N, D), float32.
        labels: (N,), int64, each in [0, C).
        validation: images (M, D) and labels (M,), of the same kinds.
        recipe: with a batch of at most N images.
        classes: C.
        seed: of the order and of the samples, in [0, 2^32).
        on_epoch: called after each epoch.
        state: what `on_state` got, to resume bit-identically; None to start.
        on_state: called after each epoch with all that the next epochs depend on; the tensors
            change with the next step.

    Returns:
        The layer as one replica, weight (1, D, C) and bias (1, 1, C), and the history on the
        validation set under the full softmax.

    Raises:
        ValueError: if a batch is larger than the training set or K is out of range.
        DivergenceError: if the loss is not finite.
    """
    if recipe.batch_size > len(x):
        raise ValueError(
            f"sampled.batch_size must be at most {len(x)}, the number of images, "
            f"got {recipe.batch_size}"
        )
    order, draws = stream_of(seed, Stream.ORDER), stream_of(seed, Stream.SAMPLES)
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    layers = [(weight.detach().T[None], bias.detach()[None, None])]  # (1, D, C), (1, 1, C)
    history: list[Evaluation] = []
    kept = {"weight": weight.detach(), "bias": bias.detach()}  # (C, D), (C,)
    generators = {"order": order, "draws": draws}
    if state is not None:
        restore(state, kept, generators)
        history = [Evaluation(n, *row) for n, row in enumerate(state["history"].tolist(), start=1)]
    for epoch in range(len(history) + 1, recipe.epochs + 1):
        for chosen, rate in steps_of(recipe, torch.randperm(len(x), generator=order), epoch):
            batch, target = x[chosen], labels[chosen]  # (B, D), (B,)
            if recipe.weighting == "full":
                by_weight, by_bias = classifier_gradients(
                    batch, weight.detach(), bias.detach(), target
                )
            else:
                loss = sampled_linear_cross_entropy(
                    batch,
                    weight,
                    target,
                    other_classes(recipe.samples or 0, target, classes, draws),
                    linear_bias=bias,
                    weighting=recipe.weighting,
                    sparse=False,  # with few classes a step touches nearly all of them
                    validate=False,
                )
                by_weight, by_bias = torch.autograd.grad(loss, (weight, bias))
            with torch.no_grad():
                weight.add_(by_weight, alpha=-rate)
                bias.add_(by_bias, alpha=-rate)
        figures = (value.item() for value in evaluate(layers, *validation))
        history.append(Evaluation(epoch, *figures))
        if not isfinite(history[-1].loss):
            raise DivergenceError(
                f"the validation loss is not finite after epoch {epoch}: lower the learning "
                f"rate, now {recipe.learning_rate}"
            )
        on_epoch(history[-1])
        rows = torch.tensor([row[1:] for row in history], dtype=torch.float64)  # (epochs, 2)
        states = {name: generator.get_state() for name, generator in generators.items()}
        on_state(kept | states | {"history": rows})
    return layers, history
