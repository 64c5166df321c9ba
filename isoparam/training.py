"""Stochastic gradient descent over R replicas of a perceptron, each with its own seed.

No autograd: the gradients are the derived ones, and the update is PyTorch's fused one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from isoparam.budget import parameters_of
from isoparam.mlp import (
    Layers,
    deltas,
    forward,
    gradients,
    initialise,
    layer_views,
    logits,
)
from isoparam.products import product
from isoparam.randomness import generator
from isoparam.softmax import cross_entropy

# Of the matrix products; weights, momentum and loss are float32.
Precision = Literal["float32", "bfloat16"]


class DivergenceError(ValueError):
    """The loss is not finite: the learning rate is too high."""


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
        momentum: in [0, 1).
        weight_decay: factor lambda of the weights that the gradient gets in addition, 0 or more.
        input_noise: standard deviation of the normal noise that each input gets, 0 or more.
        dropout: share of the hidden units that each step leaves out, in [0, 1).
        label_smoothing: share epsilon of the target that is spread over all classes, in [0, 1).
        averaging: decay beta of the moving average of the weights, in [0, 1); 0 for none.
        max_norm: greatest norm of the weights into a hidden unit, 0 for any.
        adversarial: norm of the shift that makes each input harder, 0 for none.
        precision: dtype of the matrix products' operands; they add up in float32 anyway.
        device: where everything lives.

    Attributes:
        flat: (R, P), float32, the weights that are trained.
        velocity: (R, P), float32, their momentum; 0 without.
        average: (R, P), float32, the weights to evaluate: `flat` itself without averaging.
        dtype: of the inputs that `step` takes.
        steps: how many were taken.

    Example:
        >>> trainer = Trainer([4, 32, 2], [0, 1], momentum=0.9, weight_decay=0.0)
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
        momentum: float,
        weight_decay: float,
        input_noise: float = 0.0,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        averaging: float = 0.0,
        max_norm: float = 0.0,
        adversarial: float = 0.0,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        """Draw the initial weights."""
        self.flat = torch.zeros(len(seeds), parameters_of(sizes), device=device)  # (R, P)
        self.layers = layer_views(self.flat, sizes)
        initialise(self.layers, [generator(seed, stream=1) for seed in seeds])
        self.velocity = torch.zeros_like(self.flat)
        self._updated, self._momenta = (
            _tensors(layer_views(flat, sizes)) for flat in (self.flat, self.velocity)
        )
        self.average = self.flat.clone() if averaging else self.flat
        self.noise = [generator(seed, stream=2, device=device) for seed in seeds]
        self.steps = 0
        self.dtype = torch.bfloat16 if precision == "bfloat16" else self.flat.dtype
        self._rounded = self.flat.to(self.dtype)  # (R, P), `flat` itself in float32
        self._factors = layer_views(self._rounded, sizes)
        self._momentum, self._weight_decay = momentum, weight_decay
        self._input_noise, self._dropout = input_noise, dropout
        self._label_smoothing, self._averaging = label_smoothing, averaging
        self._max_norm, self._adversarial = max_norm, adversarial

    def step(self, x: Tensor, labels: Tensor, learning_rate: float) -> Tensor:
        """One step on the batch's mean loss, as of `torch.optim.SGD`.

        With momentum mu: v <- mu v + g + lambda w, w <- w - eta v.
        With label smoothing the loss is the cross-entropy with (1 - epsilon) y + epsilon / C; with
        averaging, the average a <- b a + (1 - b) w follows, b = min(beta, t / (t + 9)) at step t.
        Adversarial training replaces x by x + r g / |g|, with g the gradient of the loss by x.

        Args:
            x: (R, B, D), of `dtype`.
            labels: (R, B), int64, in [0, C); not checked here.
            learning_rate: eta, 0 or more.

        Returns:
            (R,), the mean cross-entropy before the update, in nats, with noise, shift and dropout
            and without smoothing.

        Reference:
            Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", 2015;
            in the Euclidean norm as by Miyato, Maeda, Koyama and Ishii, "Virtual adversarial
            training", 2018.
        """
        if self._input_noise:
            x = x + self._draw(x.shape, "normal_").mul_(self._input_noise).to(x.dtype)
        if self._adversarial:
            x = x + self._harder(x, labels)
        masks = []
        if self._dropout:
            keep = 1 - self._dropout
            for weight, _ in self.layers[:-1]:
                uniform = self._draw((*labels.shape, weight.shape[-1]), "uniform_")
                masks.append(uniform.lt_(keep).div_(keep).to(x.dtype))  # (R, B, fan-out)
        outputs = forward(self._factors, x, masks)
        loss, delta = self._loss(outputs[-1], labels, self._label_smoothing)
        delta.div_(x.shape[1])  # the gradient of the mean
        by_outputs = deltas(self._factors, outputs, delta.to(x.dtype), masks)
        found = gradients(x, outputs, by_outputs)
        torch._fused_sgd_(
            self._updated,
            [gradient.to(self.flat.dtype) for gradient in _tensors(found)],
            self._momenta if self._momentum else [],
            lr=learning_rate,
            momentum=self._momentum,
            weight_decay=self._weight_decay,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
        self.steps += 1
        if self._max_norm:
            self._limit_norms()
        if self._averaging:
            decay = min(self._averaging, self.steps / (self.steps + 9))
            self.average.lerp_(self.flat, 1 - decay)
        self.round()
        return loss.mean(1)

    def round(self) -> None:
        """Make the operands of the products anew, after `flat` has changed."""
        if self._rounded is not self.flat:
            self._rounded.copy_(self.flat)

    def _loss(self, z: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        """Cross-entropy (R, B) without smoothing; gradient by the logits (R, B, C), p - y, with."""
        z = z.to(self.flat.dtype)
        log_sum = torch.logsumexp(z, -1, keepdim=True)  # (R, B, 1)
        target = labels[..., None]
        loss = (log_sum - z.gather(-1, target))[..., 0]
        delta = (z - log_sum).exp_()
        if smoothing:
            delta.sub_(smoothing / delta.shape[-1])
        share = delta.new_full((), smoothing - 1.0)
        return loss, delta.scatter_add_(-1, target, share.expand_as(target))

    def _harder(self, x: Tensor, labels: Tensor) -> Tensor:
        """The shift (R, B, D) of each input up the slope of its loss."""
        outputs = forward(self._factors, x)
        _, delta = self._loss(outputs[-1], labels, smoothing=0.0)
        first, *_ = deltas(self._factors, outputs, delta.to(x.dtype))
        slope = product(first, self._factors[0][0].mT)  # (R, B, D)
        least = torch.finfo(slope.dtype).tiny
        return slope.mul_(self._adversarial / slope.norm(dim=-1, keepdim=True).clamp_(min=least))

    def _limit_norms(self) -> None:
        """Max-norm: shorten what is longer of the weights into each hidden unit."""
        for weight, _ in self.layers[:-1]:
            norms = weight.norm(dim=1, keepdim=True)  # (R, 1, fan-out)
            weight.mul_((self._max_norm / norms).clamp_(max=1.0))

    def _draw(self, shape: Sequence[int], method: str) -> Tensor:
        """Random numbers (R, ...), float32, each replica's by its own generator."""
        drawn = self.flat.new_empty(shape)
        for replica, noise in zip(drawn, self.noise, strict=True):
            getattr(replica, method)(generator=noise)
        return drawn


def _tensors(layers: Layers) -> list[Tensor]:
    """Each replica's weights and biases by themselves, contiguous."""
    return [
        tensor
        for weight, bias in layers
        for replica in zip(weight, bias, strict=True)
        for tensor in (replica[0].T, replica[1])
    ]


class Training:
    """R replicas trained epoch by epoch, which can stop after any epoch and go on to the same bits.

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
        weight_decay: 0 or more.
        options: input_noise, dropout, label_smoothing, averaging, max_norm, adversarial and
            precision as of `Trainer`.

    Attributes:
        history: one `Epoch` for each epoch so far.

    Raises:
        ValueError: if a batch is larger than the training set, shapes do not match, or a label is
            out of range.

    Example:
        >>> x, labels = torch.eye(4).repeat(4, 1), torch.arange(16) % 2
        >>> recipe = {"sizes": [4, 8, 2], "seeds": [0, 1], "epochs": 3, "batch_size": 4,
        ...     "learning_rate": 0.1, "warmup": 0.3, "momentum": 0.9, "weight_decay": 0.0}
        >>> training = Training(x, labels, (x, labels), **recipe)
        >>> training.run_epoch().epoch
        1
        >>> resumed = Training(x, labels, (x, labels), **recipe)
        >>> resumed.restore(training.state())
        >>> training.run_epoch() == resumed.run_epoch()
        True
    """

    def __init__(
        self,
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
        **options: Any,
    ) -> None:
        """Check the data and draw the initial weights."""
        _check_data("training", x, labels, sizes)
        _check_data("validation", *validation, sizes)
        if not 1 <= batch_size <= len(x):
            raise ValueError(
                f"batch_size must be in [1, {len(x)}], the images there are, got {batch_size}"
            )
        self._trainer = Trainer(
            sizes,
            seeds,
            momentum=momentum,
            weight_decay=weight_decay,
            device=x.device,
            **options,
        )
        self._sizes = sizes
        self._orders = [generator(seed, stream=0) for seed in seeds]
        self._x, self._labels, self._validation = x.to(self._trainer.dtype), labels, validation
        self._batch_size, self._batches = batch_size, len(x) // batch_size
        self._epochs, self._learning_rate, self._warmup = epochs, learning_rate, warmup
        self.history: list[Epoch] = []

    @property
    def layers(self) -> Layers:
        """Weights (R, fan-in, fan-out) and biases (R, 1, fan-out) to evaluate, as they are now."""
        return layer_views(self._trainer.average, self._sizes)

    @property
    def done(self) -> bool:
        """Whether all epochs are."""
        return len(self.history) == self._epochs

    def run_epoch(self) -> Epoch:
        """Train one epoch and evaluate on the validation set.

        Returns:
            The epoch's record, also the last of `history`.

        Raises:
            ValueError: if all epochs are done.
            DivergenceError: if the loss is not finite.
        """
        if self.done:
            raise ValueError(f"all {self._epochs} epochs are done")
        number, size = len(self.history) + 1, self._batch_size
        order = torch.stack(
            [torch.randperm(len(self._x), generator=order) for order in self._orders]
        ).to(self._x.device)  # (R, N)
        total = order.new_zeros(len(order), dtype=torch.float64)
        for index in range(self._batches):
            chosen = order[:, index * size : (index + 1) * size]  # (R, B)
            batch = self._x.index_select(0, chosen.reshape(-1)).view(*chosen.shape, -1)  # (R, B, D)
            rate = learning_rate_at(
                (number - 1) * self._batches + index,
                self._epochs * self._batches,
                self._learning_rate,
                self._warmup,
            )
            total += self._trainer.step(batch, self._labels[chosen], rate)
        loss, accuracy = evaluate(self.layers, *self._validation)
        if not bool(torch.isfinite(total + loss).all()):
            raise DivergenceError(
                f"the loss is not finite in epoch {number}: lower the learning rate, "
                f"now {self._learning_rate}"
            )
        record = Epoch(number, (total / self._batches).tolist(), loss.tolist(), accuracy.tolist())
        self.history.append(record)
        return record

    def state(self) -> dict[str, Tensor]:
        """All that the next epochs depend on, on the CPU."""
        trainer = self._trainer
        state = {
            "weights": trainer.flat.cpu(),  # (R, P)
            "velocity": trainer.velocity.cpu(),  # (R, P)
            "orders": torch.stack([order.get_state() for order in self._orders]),  # (R, S)
            "noise": torch.stack([noise.get_state() for noise in trainer.noise]),  # (R, S)
            "history": torch.tensor(
                [[e.train_loss, e.validation_loss, e.validation_accuracy] for e in self.history],
                dtype=torch.float64,
            ).reshape(-1, 3, len(self._orders)),  # (epochs so far, 3, R)
        }
        if trainer.average is not trainer.flat:
            state["average"] = trainer.average.cpu()  # (R, P)
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of `state`, of a training with the same arguments.

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
        if kinds != found or len(history) > self._epochs:
            raise ValueError(f"this state is of another training: {found}")
        trainer = self._trainer
        trainer.flat.copy_(state["weights"])
        trainer.average.copy_(state.get("average", state["weights"]))
        trainer.velocity.copy_(state["velocity"])
        trainer.round()
        trainer.steps = len(history) * self._batches
        for name, generators in (("orders", self._orders), ("noise", trainer.noise)):
            for stream, of_seed in zip(generators, state[name], strict=True):
                stream.set_state(of_seed.clone())  # torch 2.15 crashes on a view of more
        self.history = [
            Epoch(number, *figures) for number, figures in enumerate(history.tolist(), start=1)
        ]


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
