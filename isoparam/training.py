"""Stochastic gradient descent over R replicas of a perceptron, each with its own seed.

The momentum buffer is the accumulator of the matrix products that make the gradients. All
parameters are one flat tensor, so that the update is two passes over it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isoparam.budget import parameters_of
from isoparam.mlp import (
    Layers,
    activation_buffers,
    backward,
    forward,
    initialise,
    layer_views,
    logits,
)
from isoparam.randomness import generator
from isoparam.softmax import cross_entropy


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training came to, for each of the R replicas.

    Attributes:
        epoch: number of the epoch, from 1.
        train_loss: (R,) mean loss of the epoch's batches, each before its update, in nats.
        validation_loss: (R,) mean loss after the epoch, in nats.
        validation_accuracy: (R,) share of validation images classified rightly, in [0, 1].
    """

    epoch: int
    train_loss: list[float]
    validation_loss: list[float]
    validation_accuracy: list[float]


def learning_rate_at(step: int, steps: int, peak: float, warmup: float) -> float:
    """One cycle: linear rise from 0 to `peak` over a share `warmup` of the steps, linear fall to 0.

    Args:
        step: number of the step, in [0, steps).
        steps: steps of the whole training, 1 or more.
        peak: the greatest learning rate.
        warmup: share of the steps before the peak, in [0, 1).

    Returns:
        The learning rate of this step, in (0, peak].

    Example:
        >>> [learning_rate_at(step, 5, peak=1.0, warmup=0.4) for step in range(5)]
        [0.5, 1.0, 1.0, 0.6666666666666666, 0.3333333333333333]
    """
    rise = max(1, round(warmup * steps))
    fall = max(1, steps - rise)
    return peak * min((step + 1) / rise, (steps - step) / fall)


class Trainer:
    """R replicas of one perceptron and their momentum, trained batch by batch.

    Args:
        sizes: sizes of all layers, input and output included.
        seeds: one for each replica, 0 or more, different from each other.
        batch_size: images in a batch, 1 or more.
        momentum: in [0, 1).
        weight_decay: factor lambda of the shrinkage 1 - (learning rate) lambda at each step.
        device: where everything lives.

    Example:
        >>> trainer = Trainer([4, 32, 2], [0, 1], batch_size=16, momentum=0.9, weight_decay=0.0)
        >>> x, labels = torch.eye(4).repeat(4, 1), torch.arange(16) % 2
        >>> first = trainer.step(x.expand(2, -1, -1), labels.expand(2, -1), learning_rate=0.1)
        >>> for _ in range(50):
        ...     last = trainer.step(x.expand(2, -1, -1), labels.expand(2, -1), learning_rate=0.1)
        >>> bool((last < 0.1 * first).all())
        True
    """

    def __init__(
        self,
        sizes: Sequence[int],
        seeds: Sequence[int],
        *,
        batch_size: int,
        momentum: float,
        weight_decay: float,
        device: torch.device | str = "cpu",
    ) -> None:
        """Draw the initial weights and make room for a batch."""
        self.flat = torch.zeros(len(seeds), parameters_of(sizes), device=device)  # (R, P)
        self.layers = layer_views(self.flat, sizes)
        initialise(self.layers, [generator(seed, stream=1) for seed in seeds])
        self.velocity = torch.zeros_like(self.flat)
        self._accumulators = layer_views(self.velocity, sizes)
        self._momentum, self._weight_decay = momentum, weight_decay
        self._outputs = activation_buffers(self.layers, batch_size)
        self._deltas = activation_buffers(self.layers, batch_size)

    def step(self, x: Tensor, labels: Tensor, learning_rate: float) -> Tensor:
        """One step on the batch's mean loss: v <- momentum v + g, w <- (1 - eta lambda) w - eta v.

        Args:
            x: (R, B, D), of the parameters' dtype.
            labels: (R, B), int64, in [0, C); not checked here.
            learning_rate: eta, 0 or more.

        Returns:
            (R,), the mean loss before the update, in nats.
        """
        log_p = torch.log_softmax(forward(self.layers, x, self._outputs), -1)  # (R, B, C)
        target = labels[..., None]
        loss = -log_p.gather(-1, target).mean((1, 2))  # (R,)
        delta = torch.exp(log_p, out=self._deltas[-1])
        delta.scatter_add_(-1, target, delta.new_full((), -1.0).expand_as(target))
        delta.div_(x.shape[1])  # the gradient of the mean, p - [i = c] over B
        backward(self.layers, x, self._outputs, self._deltas, self._accumulators, self._momentum)
        self.flat.mul_(1 - learning_rate * self._weight_decay)
        self.flat.add_(self.velocity, alpha=-learning_rate)
        return loss


def train(
    x: Tensor,
    labels: Tensor,
    validation: tuple[Tensor, Tensor],
    *,
    sizes: Sequence[int],
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    warmup: float,
    momentum: float,
    weight_decay: float,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> tuple[Layers, list[Epoch]]:
    """Train R replicas, each with the initial weights and the data order of its own seed.

    Each epoch takes a new permutation of the images and leaves out its remainder modulo the batch
    size. The order depends on the seed alone, so that networks of any depth see the same batches.

    Args:
        x: (N, D), float32; its device is where training runs.
        labels: (N,), int64, each in [0, C).
        validation: images (M, D) and labels (M,), of the same kinds.
        sizes: sizes of all layers, D first and C last.
        seeds: one for each replica, in [0, 2^32), different from each other.
        epochs: passes over the images, 1 or more.
        batch_size: images in a batch, in [1, N].
        learning_rate: the peak, more than 0.
        warmup: share of the steps in which the learning rate rises, in [0, 1).
        momentum: in [0, 1).
        weight_decay: 0 or more; see `Trainer.step`.
        on_epoch: called after each epoch.

    Returns:
        The trained layers and the history, one `Epoch` for each epoch.

    Raises:
        ValueError: if a batch is larger than the training set, shapes do not match, a label is
            out of range, or the loss is not finite.
    """
    _check_data("training", x, labels, sizes)
    _check_data("validation", *validation, sizes)
    if not 1 <= batch_size <= len(x):
        raise ValueError(
            f"batch_size must be in [1, {len(x)}], the images there are, got {batch_size}"
        )
    trainer = Trainer(
        sizes,
        seeds,
        batch_size=batch_size,
        momentum=momentum,
        weight_decay=weight_decay,
        device=x.device,
    )
    orders = [generator(seed, stream=0) for seed in seeds]
    batches = len(x) // batch_size
    batch = x.new_empty(len(seeds) * batch_size, x.shape[1])
    history = []
    for epoch in range(1, epochs + 1):
        order = torch.stack([torch.randperm(len(x), generator=order) for order in orders])
        order = order.to(x.device)  # (R, N)
        total = x.new_zeros(len(seeds), dtype=torch.float64)
        for index in range(batches):
            chosen = order[:, index * batch_size : (index + 1) * batch_size]  # (R, B)
            torch.index_select(x, 0, chosen.reshape(-1), out=batch)
            rate = learning_rate_at(
                (epoch - 1) * batches + index, epochs * batches, learning_rate, warmup
            )
            total += trainer.step(batch.view(*chosen.shape, -1), labels[chosen], rate)
        loss, accuracy = evaluate(trainer.layers, *validation)
        history.append(Epoch(epoch, (total / batches).tolist(), loss.tolist(), accuracy.tolist()))
        if not bool(torch.isfinite(total + loss).all()):
            raise ValueError(
                f"the loss is not finite in epoch {epoch}: lower the learning rate, "
                f"now {learning_rate}"
            )
        on_epoch(history[-1])
    return trainer.layers, history


def evaluate(layers: Layers, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy of each replica.

    Args:
        layers: weights (R, fan-in, fan-out) and biases (R, 1, fan-out).
        x: (N, D), of the layers' dtype.
        labels: (N,), int64, each in [0, C).

    Returns:
        Mean loss in nats and share of images classified rightly, in [0, 1]: (R,) each, float64.

    Raises:
        ValueError: if a label is out of range.
    """
    z = logits(layers, x).double()  # (R, N, C)
    loss = cross_entropy(z, labels.expand(z.shape[:-1]))  # (R, N)
    return loss.mean(1), (z.argmax(-1) == labels).double().mean(1)


def _check_data(name: str, x: Tensor, labels: Tensor, sizes: Sequence[int]) -> None:
    inputs, classes = sizes[0], sizes[-1]
    if x.ndim != 2 or x.shape[1] != inputs or labels.shape != x.shape[:1] or not len(x):
        raise ValueError(
            f"{name} images must be of shape (N, {inputs}) with N labels, "
            f"got {tuple(x.shape)} and {tuple(labels.shape)} labels"
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"{name} labels must lie in [0, {classes}), "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
