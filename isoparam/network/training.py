"""Stochastic gradient descent, epoch by epoch, over R replicas of a perceptron."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isoparam.network.mlp import Layers, logits
from isoparam.network.randomness import Stream, stream_of
from isoparam.network.recipe import Recipe, Schedule
from isoparam.network.replicas import Replicas
from isoparam.network.softmax import check_classes, cross_entropy


class DivergenceError(ValueError):
    """The loss is not finite: the learning rate is too high."""


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch, for each of the R replicas.

    Attributes:
        epoch: number of the epoch, from 1.
        train_loss: (R,) mean loss of the epoch's batches, each before its update, in nats.
        validation_loss: (R,) mean loss after the epoch, in nats.
        validation_accuracy: (R,) share of validation images classified correctly, in [0, 1].
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


def steps_of(schedule: Schedule, order: Tensor, epoch: int) -> Iterator[tuple[Tensor, float]]:
    """The batch and the learning rate of each step of one epoch.

    Args:
        schedule: with a batch of B images, at most N.
        order: (..., N), the images of the epoch; their remainder modulo B is left out.
        epoch: its number, from 1.

    Yields:
        The images of the batch, (..., B), and its rate, as of `learning_rate_at`.

    Example:
        >>> schedule = Schedule(epochs=2, batch_size=2, learning_rate=1.0, warmup=0.5)
        >>> list(steps_of(schedule, torch.tensor([3, 0, 4, 2, 1]), epoch=1))
        [(tensor([3, 0]), 0.5), (tensor([4, 2]), 1.0)]
    """
    size = schedule.batch_size
    steps = order.shape[-1] // size
    for index in range(steps):
        step, total = (epoch - 1) * steps + index, schedule.epochs * steps
        rate = learning_rate_at(step, total, schedule.learning_rate, schedule.warmup)
        yield order[..., index * size : (index + 1) * size], rate


class Training:
    """R replicas trained epoch by epoch, which can stop after any epoch and resume bit-identically.

    Each epoch takes a new permutation of the images and leaves out its remainder modulo the batch
    size. The order depends on the seed alone, so that networks of any depth see the same batches.

    Args:
        x: (N, D), float32; its device is where training runs.
        labels: (N,), int64, each in [0, C).
        validation: images (M, D) and labels (M,), of the same kinds.
        recipe: with sizes from D to C and a batch of at most N images.
        seeds: one for each replica, in [0, 2^32), different from each other.

    Attributes:
        history: one `Epoch` for each epoch so far.

    Raises:
        ValueError: if a batch is larger than the training set, shapes do not match, or a label is
            out of range.

    Example:
        >>> x, labels = torch.eye(4).repeat(4, 1), torch.arange(16) % 2
        >>> recipe = Recipe(sizes=(4, 8, 2), epochs=3, batch_size=4, learning_rate=0.1, warmup=0.3,
        ...     momentum=0.9, weight_decay=0.0)
        >>> training = Training(x, labels, (x, labels), recipe, [0, 1])
        >>> training.run_epoch().epoch
        1
        >>> resumed = Training(x, labels, (x, labels), recipe, [0, 1])
        >>> resumed.restore(training.state())
        >>> training.run_epoch() == resumed.run_epoch()
        True
    """

    def __init__(
        self,
        x: Tensor,
        labels: Tensor,
        validation: tuple[Tensor, Tensor],
        recipe: Recipe,
        seeds: Sequence[int],
    ) -> None:
        """Check the data and draw the initial weights."""
        _check_data("training", x, labels, recipe.sizes)
        _check_data("validation", *validation, recipe.sizes)
        if not 1 <= recipe.batch_size <= len(x):
            raise ValueError(
                f"batch_size must be in [1, {len(x)}], the number of images, "
                f"got {recipe.batch_size}"
            )
        self._recipe = recipe
        self._replicas = Replicas(recipe, seeds, x.device)
        self._orders = [stream_of(seed, Stream.ORDER) for seed in seeds]
        self._x, self._labels, self._validation = x.to(self._replicas.dtype), labels, validation
        self.history: list[Epoch] = []

    @property
    def layers(self) -> Layers:
        """Weights (R, fan-in, fan-out) and biases (R, 1, fan-out), as they are now."""
        return self._replicas.layers

    @property
    def done(self) -> bool:
        """Whether all epochs are."""
        return len(self.history) == self._recipe.epochs

    def run_epoch(self) -> Epoch:
        """Train one epoch and evaluate on the validation set.

        Returns:
            The epoch's record, also the last of `history`.

        Raises:
            ValueError: if all epochs are done.
            DivergenceError: if the loss is not finite.
        """
        if self.done:
            raise ValueError(f"all {self._recipe.epochs} epochs are done")
        number = len(self.history) + 1
        order = torch.stack(
            [torch.randperm(len(self._x), generator=order) for order in self._orders]
        ).to(self._x.device)  # (R, N)
        total = order.new_zeros(len(order), dtype=torch.float64)
        for chosen, rate in steps_of(self._recipe, order, number):  # (R, B)
            batch = self._x.index_select(0, chosen.reshape(-1)).view(*chosen.shape, -1)  # (R, B, D)
            total += self._replicas.step(batch, self._labels[chosen], rate)
        loss, accuracy = evaluate(self.layers, *self._validation, skips=self._recipe.skips)
        if not bool(torch.isfinite(total + loss).all()):
            raise DivergenceError(
                f"the loss is not finite in epoch {number}: lower the learning rate, "
                f"now {self._recipe.learning_rate}"
            )
        mean = total / (len(self._x) // self._recipe.batch_size)
        record = Epoch(number, mean.tolist(), loss.tolist(), accuracy.tolist())
        self.history.append(record)
        return record

    def state(self) -> dict[str, Tensor]:
        """All that the next epochs depend on, on the CPU."""
        return {
            "weights": self._replicas.flat.cpu(),  # (R, P)
            "velocity": self._replicas.velocity.cpu(),  # (R, P)
            "orders": torch.stack([order.get_state() for order in self._orders]),  # (R, S)
            "history": torch.tensor(
                [[e.train_loss, e.validation_loss, e.validation_accuracy] for e in self.history],
                dtype=torch.float64,
            ).reshape(-1, 3, len(self._orders)),  # (epochs so far, 3, R)
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Resume from a state of `state`, of a training with the same arguments.

        Raises:
            ValueError: if the state is of other shapes or dtypes; nothing has changed then.
        """
        own = self.state()
        history = state.get("history", own["history"])
        expected = own | {"history": own["history"].new_empty(len(history), 3, len(self._orders))}
        kinds, found = (
            {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
            for tensors in (expected, state)
        )
        if kinds != found or len(history) > self._recipe.epochs:
            raise ValueError(f"this state is of another training: {found}")
        self._replicas.flat.copy_(state["weights"])
        self._replicas.velocity.copy_(state["velocity"])
        self._replicas.refresh()
        for stream, of_seed in zip(self._orders, state["orders"], strict=True):
            stream.set_state(of_seed.clone())  # torch 2.15 crashes on a view of more
        self.history = [
            Epoch(number, *figures) for number, figures in enumerate(history.tolist(), start=1)
        ]


def evaluate(
    layers: Layers, x: Tensor, labels: Tensor, *, skips: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean loss and accuracy of each replica.

    Args:
        layers: weights (R, fan-in, fan-out) and biases (R, 1, fan-out).
        x: (N, D), of the layers' dtype.
        labels: (N,), int64, each in [0, C).
        skips: as of `Recipe`.

    Returns:
        Mean loss in nats and share of images classified correctly, in [0, 1]: (R,) each, float64.

    Raises:
        ValueError: if a label is out of range.
    """
    z = logits(layers, x, skips=skips).double()  # (R, N, C)
    loss = cross_entropy(z, labels.expand(z.shape[:-1]))  # (R, N)
    return loss.mean(1), (z.argmax(-1) == labels).double().mean(1)


def _check_data(name: str, x: Tensor, labels: Tensor, sizes: Sequence[int]) -> None:
    inputs, classes = sizes[0], sizes[-1]
    if x.ndim != 2 or x.shape[1] != inputs or labels.shape != x.shape[:1] or not len(x):
        raise ValueError(
            f"{name} images must be of shape (N, {inputs}) with N labels, "
            f"got {tuple(x.shape)} and {tuple(labels.shape)} labels"
        )
    check_classes(f"{name} labels", labels, classes)
