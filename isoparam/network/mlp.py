"""The multilayer perceptron, R replicas side by side, forward and backward without autograd.

Tensors have a leading replica axis R. `forward`, `deltas` and `gradients` also take those of one
replica without it. Parameters are views of one flat tensor, which is saved and restored as a whole.

With `skips`, a layer between hidden ones of one width adds what it gets to its output. The study
has no skips; an experiment tries them (benchmarks/skips.py).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor

from isoparam.budget import parameters_of
from isoparam.network.products import product, zero_where_inactive

Layers = list[tuple[Tensor, Tensor]]

# Fixed, since the shape of a matrix product can change the last bits of its result.
EVALUATION_BATCH = 1000


def layer_views(flat: Tensor, sizes: Sequence[int]) -> Layers:
    """Views of a flat tensor as the weights and biases of consecutive layers.

    Args:
        flat: (R, P), with P the number of parameters of a perceptron of these sizes.
        sizes: sizes of all layers, input and output included.

    Returns:
        For each layer its weight, (R, fan-in, fan-out), and its bias, (R, 1, fan-out). A weight
        lies in memory as that of `torch.nn.Linear`, (fan-out, fan-in), which suits oneDNN.

    Raises:
        ValueError: if P is not the number of parameters.

    Example:
        >>> (weight, bias), _ = layer_views(torch.zeros(5, 21), [3, 4, 1])
        >>> weight.shape, bias.shape
        (torch.Size([5, 3, 4]), torch.Size([5, 1, 4]))
    """
    replicas, length = flat.shape
    if length != parameters_of(sizes):
        raise ValueError(
            f"flat must have {parameters_of(sizes)} columns, as many as a perceptron of sizes "
            f"{list(sizes)} has parameters, got {length}"
        )
    layers, start = [], 0
    for i, o in pairwise(sizes):
        weight, bias = flat[:, start : start + i * o], flat[:, start + i * o : start + (i + 1) * o]
        layers.append((weight.view(replicas, o, i).mT, bias.view(replicas, 1, o)))
        start += (i + 1) * o
    return layers


def has_skip(layers: Layers, index: int) -> bool:
    """Whether a layer lies between hidden ones of one width, so that a skip can lead around it."""
    fan_in, fan_out = layers[index][0].shape[-2:]
    return 0 < index < len(layers) - 1 and fan_in == fan_out


def initialise(
    layers: Layers, generators: Sequence[torch.Generator], *, skips: bool = False
) -> None:
    """Draw the initial weights of each replica, in place; biases become 0.

    Weights before a ReLU are normal with variance 2 / fan-in, those of the last layer with
    variance 1 / fan-in. Where n layers have a skip, their variance is 2 / (n fan-in), so that the
    sum over the layers does not grow with their number.

    Args:
        layers: weights (R, fan-in, fan-out) and biases (R, 1, fan-out), on any device.
        generators: R generators on the CPU, one for each replica.
        skips: whether layers have a skip, as of `has_skip`.

    Reference:
        He, Zhang, Ren and Sun, "Delving deep into rectifiers", 2015, equation 10.
    """
    around = [skips and has_skip(layers, index) for index in range(len(layers))]
    for index, (weight, bias) in enumerate(layers):
        fan_in = weight.shape[1]
        gain = 1.0 if index == len(layers) - 1 else 2.0 / (sum(around) if around[index] else 1)
        for replica, generator in zip(weight, generators, strict=True):
            draw = torch.randn(replica.shape, generator=generator)
            replica.copy_(draw.mul_(sqrt(gain / fan_in)))
        bias.zero_()


def forward(layers: Layers, x: Tensor, *, skips: bool = False) -> list[Tensor]:
    """Outputs of all layers: r_l = max(0, h_{l-1} W_l + b_l), the last one without the ReLU.

    The next layer gets h_l = r_l; with a skip, h_l = h_{l-1} + r_l.

    Args:
        layers: weights (R, fan-in, fan-out) and biases (R, 1, fan-out).
        x: (R, B, D), the input h_0.
        skips: whether layers have a skip, as of `has_skip`.

    Returns:
        r_l of each layer, (R, B, fan-out). The last are the logits.
    """
    outputs: list[Tensor] = []
    for index, (weight, bias) in enumerate(layers):
        output = product(x, weight, bias, relu=index < len(layers) - 1)  # (R, B, fan-out)
        outputs.append(output)
        x = x + output if skips and has_skip(layers, index) else output
    return outputs


def deltas(
    layers: Layers, outputs: Sequence[Tensor], delta: Tensor, *, skips: bool = False
) -> Iterator[Tensor]:
    """Gradients with respect to the inputs of all nonlinearities, from the last layer down.

    delta_{l-1} = g_{l-1} [r_{l-1} > 0] with g_{l-1} = delta_l W_l^T, to which a skip adds g_l.

    Args:
        layers: weights (R, fan-in, fan-out) and biases (R, 1, fan-out). Layer l is not read any
            more once its delta is there, so that it can be updated while it is in the cache.
        outputs: what `forward` returned.
        delta: the gradient of the loss with respect to the logits, (R, B, C).
        skips: as of `forward`.

    Yields:
        delta_l of each layer, (R, B, fan-out), from the last, which is `delta`, to the first.
    """
    above = delta
    for index in reversed(range(1, len(layers))):
        below = product(delta, layers[index][0].mT)  # (R, B, fan-in)
        around = skips and has_skip(layers, index)
        yield delta
        if around:
            below += above
        if skips:
            above = below.clone()  # before it is changed in place
        delta = zero_where_inactive(below, outputs[index - 1])
    yield delta


def gradients(
    layers: Layers, x: Tensor, outputs: Sequence[Tensor], delta: Tensor, *, skips: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Gradients of all parameters: dl/dW_l = h_{l-1}^T delta_l and dl/db_l = 1^T delta_l.

    Args:
        layers: as of `deltas`; each can be updated once its gradients are there.
        x: (R, B, D), the input given to `forward`.
        outputs: what `forward` returned.
        delta: as of `deltas`.
        skips: as of `forward`.

    Yields:
        The gradients with respect to weight, (R, fan-in, fan-out), and bias, (R, 1, fan-out), from
        the last layer to the first.
    """
    inputs = [x]
    for index, output in enumerate(outputs[:-1]):
        inputs.append(inputs[-1] + output if skips and has_skip(layers, index) else output)
    by_outputs = deltas(layers, outputs, delta, skips=skips)
    for below, by_output in zip(reversed(inputs), by_outputs, strict=True):
        yield product(by_output.mT, below).mT, by_output.sum(-2, keepdim=True)


def logits(layers: Layers, x: Tensor, *, skips: bool = False) -> Tensor:
    """Logits of any number of images, the same images for each replica.

    Args:
        layers: weights (R, D, ...), biases, as of `layer_views`.
        x: (N, D), of the layers' dtype.
        skips: as of `forward`.

    Returns:
        (R, N, C).

    Example:
        >>> logits(layer_views(torch.ones(2, 21), [3, 4, 1]), torch.ones(5, 3)).shape
        torch.Size([2, 5, 1])
    """
    replicas = layers[0][0].shape[0]
    chunks = [
        forward(layers, chunk.expand(replicas, -1, -1), skips=skips)[-1]
        for chunk in x.split(EVALUATION_BATCH)
    ]
    return torch.cat(chunks, 1)
