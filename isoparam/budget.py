"""Parameter counts of multilayer perceptrons, and the width that meets a budget at a given depth.

Depth is the number of hidden layers. The derivation stands in docs/homework.md, problem 2.3.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt


def layer_sizes(depth: int, width: int, inputs: int, classes: int) -> list[int]:
    """Sizes of all layers, input and output included.

    Args:
        depth: number of hidden layers, 0 or more.
        width: units of each hidden layer, 1 or more; ignored at depth 0.
        inputs: number of input features, 1 or more.
        classes: number of classes, 1 or more.

    Returns:
        `[inputs, width, ..., width, classes]`, with `depth` times `width`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> layer_sizes(0, 0, inputs=784, classes=10)
        [784, 10]
        >>> layer_sizes(2, 588, inputs=784, classes=10)
        [784, 588, 588, 10]
    """
    _check("depth", depth, 0)
    _check("inputs", inputs, 1)
    _check("classes", classes, 1)
    if depth:
        _check("width", width, 1)
    return [inputs, *[width] * depth, classes]


def parameters_of(sizes: Sequence[int]) -> int:
    """Number of weights and biases of a perceptron: the sum of (fan-in + 1) fan-out.

    Args:
        sizes: sizes of all layers, input and output included.

    Returns:
        The number of learnable parameters.

    Example:
        >>> parameters_of([784, 1024, 10])
        814090
    """
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))


def count_parameters(depth: int, width: int, inputs: int, classes: int) -> int:
    """Number of weights and biases of a perceptron with `depth` equal hidden layers.

    Arguments and errors are those of `layer_sizes`.

    Returns:
        The number of learnable parameters.

    Example:
        >>> count_parameters(0, 0, inputs=784, classes=10)
        7850
        >>> count_parameters(1, 1024, inputs=784, classes=10)
        814090
    """
    return parameters_of(layer_sizes(depth, width, inputs, classes))


def ideal_width(budget: int, depth: int, inputs: int, classes: int) -> float:
    """The real-valued width at which the count of parameters equals the budget.

    With P parameters, L hidden layers of width n, D inputs and C classes,

        P = (L - 1) n^2 + (D + L + C) n + C.

    At L = 1 this is linear: n = (P - C) / (D + 1 + C). At L >= 2 its positive root is

        n = (-(D + L + C) + sqrt((D + L + C)^2 + 4 (L - 1) (P - C))) / (2 (L - 1)).

    Args:
        budget: number of parameters wanted, more than `classes`.
        depth: number of hidden layers, 1 or more.
        inputs: number of input features, 1 or more.
        classes: number of classes, 1 or more.

    Returns:
        The width, a positive real number.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> ideal_width(814_090, depth=1, inputs=784, classes=10)
        1024.0
        >>> round(ideal_width(814_090, depth=2, inputs=784, classes=10), 2)
        588.15
    """
    _check("depth", depth, 1)
    _check("inputs", inputs, 1)
    _check("classes", classes, 1)
    _check("budget", budget, classes + 1)
    linear, constant = inputs + depth + classes, budget - classes
    if depth == 1:
        return constant / linear
    square = depth - 1
    # The root without the difference of two nearly equal numbers.
    return 2 * constant / (linear + sqrt(linear * linear + 4 * square * constant))


def width_for_budget(budget: int, depth: int, inputs: int, classes: int) -> int:
    """The width whose count of parameters is nearest to the budget; the smaller one at a tie.

    Args:
        budget: number of parameters wanted, at least those of the network of width 1.
        depth: number of hidden layers, 1 or more.
        inputs: number of input features, 1 or more.
        classes: number of classes, 1 or more.

    Returns:
        Units of each hidden layer, 1 or more.

    Raises:
        ValueError: if an argument is out of its range, or a network of width 1 is over the budget.

    Example:
        >>> [width_for_budget(814_090, depth, inputs=784, classes=10) for depth in (1, 2, 3, 8)]
        [1024, 588, 469, 289]
    """
    smallest = count_parameters(depth, 1, inputs, classes)
    if budget < smallest:
        raise ValueError(
            f"budget must be at least {smallest:,}, the parameters of a network of depth {depth} "
            f"and width 1, got {budget:,}"
        )
    below = max(1, int(ideal_width(budget, depth, inputs, classes)))
    return min(
        (below, below + 1),
        key=lambda width: abs(count_parameters(depth, width, inputs, classes) - budget),
    )


def _check(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
