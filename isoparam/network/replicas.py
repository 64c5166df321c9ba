"""R replicas of a perceptron and their momentum, trained a batch at a time.

No autograd: the gradients are the derived ones, and the update is PyTorch's fused one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from isoparam.budget import parameters_of
from isoparam.network.mlp import Layers, deltas, forward, gradients, initialise, layer_views
from isoparam.network.products import product, update
from isoparam.network.randomness import Stream, stream_of
from isoparam.network.recipe import Recipe
from isoparam.network.softmax import cross_entropy_with_gradient


class Replicas:
    """R replicas of one perceptron, each with its own seed, and their momentum.

    Args:
        recipe: of which sizes, momentum, weight_decay, adversarial, precision and skips count here.
        seeds: one for each replica, in [0, 2^32), different from each other.
        device: where everything lives.

    Attributes:
        flat: (R, P), float32, the weights.
        velocity: (R, P), float32, their momentum; 0 without.
        layers: views of `flat` as weights (R, fan-in, fan-out) and biases (R, 1, fan-out).
        dtype: of the inputs that `step` takes.

    Example:
        >>> recipe = Recipe(sizes=(4, 32, 2), epochs=1, batch_size=16, learning_rate=0.1,
        ...     warmup=0.0, momentum=0.9, weight_decay=0.0)
        >>> replicas = Replicas(recipe, [0, 1])
        >>> x, labels = torch.eye(4).repeat(2, 4, 1), torch.arange(16).remainder(2).repeat(2, 1)
        >>> first = replicas.step(x, labels, learning_rate=0.1)
        >>> for _ in range(50):
        ...     last = replicas.step(x, labels, learning_rate=0.1)
        >>> bool((last < 0.1 * first).all())
        True
    """

    def __init__(
        self, recipe: Recipe, seeds: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        """Draw the initial weights."""
        sizes = recipe.sizes
        self._recipe = recipe
        self.flat = torch.zeros(len(seeds), parameters_of(sizes), device=device)  # (R, P)
        self.velocity = torch.zeros_like(self.flat)
        self.layers = layer_views(self.flat, sizes)
        streams = [stream_of(seed, Stream.WEIGHTS) for seed in seeds]
        initialise(self.layers, streams, skips=recipe.skips)
        self.dtype = torch.bfloat16 if recipe.precision == "bfloat16" else self.flat.dtype
        self._operands = self.flat.to(self.dtype)  # (R, P), `flat` itself in float32
        views = [layer_views(flat, sizes) for flat in (self._operands, self.flat, self.velocity)]
        # On a CPU each replica is stepped by itself, by views that are made once: it is faster.
        self._by_replica = self.flat.device.type == "cpu"
        parts = [[[(w[r], b[r]) for w, b in view] for view in views] for r in range(len(seeds))]
        self._parts = [
            _Part(factors, [*map(_tensors, weights)], [*map(_tensors, momenta)])
            for factors, weights, momenta in (parts if self._by_replica else [views])
        ]

    def step(self, x: Tensor, labels: Tensor, learning_rate: float) -> Tensor:
        """One step on the batch's mean loss, as of `torch.optim.SGD`.

        With momentum mu: v <- mu v + g + lambda w, w <- w - eta v.
        Adversarial training replaces x by x + r g / |g|, with g the gradient of the loss with
        respect to x.

        Args:
            x: (R, B, D), of `dtype`.
            labels: (R, B), int64, in [0, C); not checked here.
            learning_rate: eta, 0 or more.

        Returns:
            (R,), the mean cross-entropy before the update, in nats, of the shifted inputs.

        Reference:
            Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", 2015;
            in the Euclidean norm as by Miyato, Maeda, Koyama and Ishii, "Virtual adversarial
            training", 2018.
        """
        inputs = zip(x, labels, strict=True) if self._by_replica else [(x, labels)]
        losses = [
            self._step(part, *given, learning_rate)
            for part, given in zip(self._parts, inputs, strict=True)
        ]
        self.refresh()
        return torch.hstack(losses)

    def _step(self, part: "_Part", x: Tensor, labels: Tensor, learning_rate: float) -> Tensor:
        if self._recipe.adversarial:
            x = x + self._shift(part.factors, x, labels)
        skips = self._recipe.skips
        outputs = forward(part.factors, x, skips=skips)
        loss, delta = cross_entropy_with_gradient(outputs[-1].to(self.flat.dtype), labels)
        delta.div_(x.shape[-2])  # the gradient of the mean
        found = gradients(part.factors, x, outputs, delta.to(x.dtype), skips=skips)
        # Each layer as soon as its gradient is there: both are in the cache.
        for weights, momenta, of_layer in zip(
            reversed(part.weights), reversed(part.momenta), found, strict=True
        ):
            update(
                weights,
                [gradient.to(self.flat.dtype) for gradient in _tensors(of_layer)],
                momenta,
                learning_rate=learning_rate,
                momentum=self._recipe.momentum,
                weight_decay=self._recipe.weight_decay,
            )
        return loss.mean(-1)

    def refresh(self) -> None:
        """Recompute the operands of the products after a change of `flat`."""
        if self._operands is not self.flat:
            self._operands.copy_(self.flat)

    def _shift(self, factors: Layers, x: Tensor, labels: Tensor) -> Tensor:
        """The shift, of the shape of x, that raises the loss of each input the most."""
        skips = self._recipe.skips
        outputs = forward(factors, x, skips=skips)
        _, delta = cross_entropy_with_gradient(outputs[-1].to(self.flat.dtype), labels)
        *_, first = deltas(factors, outputs, delta.to(x.dtype), skips=skips)
        slope = product(first, factors[0][0].mT)
        norm = slope.norm(dim=-1, keepdim=True).clamp_(min=torch.finfo(slope.dtype).tiny)
        return slope.mul_(self._recipe.adversarial / norm)


class _Part(NamedTuple):
    """What a step works on: one replica without the axis R, or all of them."""

    factors: Layers
    weights: list[list[Tensor]]  # of each layer
    momenta: list[list[Tensor]]


def _tensors(layer: tuple[Tensor, Tensor]) -> list[Tensor]:
    """The weights and biases of each replica alone, contiguous."""
    weight, bias = layer
    return [
        tensor
        for w, b in ([layer] if weight.ndim == 2 else zip(weight, bias, strict=True))
        for tensor in (w.T, b)
    ]
