"""Which differences between models are more than the luck of their seeds.

All tests are Student's t over seeds: they ask what other initial weights and orders of the images
would change, on the same training, validation and test images.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import linear_regression
from typing import Literal, NamedTuple

from scipy.special import stdtr

from isoparam.results.statistics import estimate

# Of each family of tests, the chance of a false alarm.
LEVEL = 0.05

# Accuracies on N images differ by 1/N or not at all: what is below this is rounding.
SAME = 1e-12


class TTest(NamedTuple):
    """Student's t test of whether a mean is zero.

    Attributes:
        mean: the sample's mean.
        lo: lower end of the 95 % interval of the mean; None where no test is possible.
        hi: upper end of it; None where no test is possible.
        p: two-sided p-value; None where no test is possible.
    """

    mean: float
    lo: float | None
    hi: float | None
    p: float | None


class Pair(NamedTuple):
    """Two models compared over the same seeds.

    Attributes:
        first: name of a model.
        second: name of another.
        difference: mean accuracy of the first less that of the second.
        lo: lower end of its 95 % interval, for this pair alone; None where no test is possible.
        hi: upper end of it; None where no test is possible.
        p: two-sided p-value, for this pair alone; None where no test is possible.
        p_adjusted: p-value by Holm's correction for all pairs; None where no test is possible.
    """

    first: str
    second: str
    difference: float
    lo: float | None
    hi: float | None
    p: float | None
    p_adjusted: float | None


def t_test(values: Sequence[float]) -> TTest:
    """Student's t test of the mean against zero.

    t = sqrt(n) mean / deviation, with n - 1 degrees of freedom

    Args:
        values: one for each seed, 1 or more.

    Returns:
        The mean, its interval and the p-value. One value tells nothing of the spread of others,
        and values that are all equal hide it in their last digit: then no test is possible.

    Raises:
        ValueError: if there is no value.

    Example:
        >>> round(t_test([0.01, 0.02, 0.03]).p, 6)  # t = 2 sqrt(3)
        0.07418
        >>> t_test([0.5, 0.5])
        TTest(mean=0.5, lo=None, hi=None, p=None)

    Reference:
        Student, "The probable error of a mean", Biometrika, 1908.
    """
    mean, deviation, lo, hi = estimate(values)
    if not deviation or max(values) - min(values) <= SAME:
        return TTest(mean, None, None, None)
    t = mean / (deviation / len(values) ** 0.5)
    return TTest(mean, lo, hi, 2 * float(stdtr(len(values) - 1, -abs(t))))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down method.

    The k-th smallest of m, k = 1, ..., m, becomes the largest (m - j + 1) p_(j) of j <= k, at most
    1. To call those of at most 5 % significant is to raise any false alarm in at most 5 % of all
    studies, however the tests depend on each other.

    Args:
        p_values: of all tests of the family.

    Returns:
        The adjusted ones, in the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005])
        [0.03, 0.06, 0.06, 0.02]

    Reference:
        Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
        Statistics, 1979.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(largest, 1.0)
    return adjusted


def compare_pairs(samples: Mapping[str, Sequence[float]]) -> list[Pair]:
    """Compare all pairs of models by paired t tests, corrected for their number.

    Args:
        samples: the accuracies of each model, one for each seed, in the same order of the seeds.

    Returns:
        One for each pair, in the order of the models. A pair that cannot be tested still counts
        in the correction, as one of p-value 1.

    Raises:
        ValueError: if the models do not have equally many accuracies, or have none.

    Example:
        >>> pairs = compare_pairs({"a": [0.9, 0.8], "b": [0.6, 0.7], "c": [0.6, 0.5]})
        >>> [(pair.first, pair.second, round(pair.difference, 3)) for pair in pairs]
        [('a', 'b', 0.2), ('a', 'c', 0.3), ('b', 'c', 0.1)]
    """
    counts = {name: len(values) for name, values in samples.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise ValueError(f"models are compared over the same seeds, but there are {listed}")
    names = list(combinations(samples, 2))
    tests = [
        t_test([a - b for a, b in zip(samples[first], samples[second], strict=True)])
        for first, second in names
    ]
    adjusted = holm([1.0 if test.p is None else test.p for test in tests])
    return [
        Pair(*pair, *test, None if test.p is None else p_adjusted)
        for pair, test, p_adjusted in zip(names, tests, adjusted, strict=True)
    ]


def best_p_values(samples: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """For each model the p-value of the hypothesis that no other has a higher mean.

    p_i = min(1, (m - 1) min over j of p_ij), p_ij of the one-sided paired t test of j above i

    The models with p_i > 5 % are a 95 % confidence set of the best: it leaves out the model of the
    truly highest mean in at most 5 % of all studies. That needs no correction for the number of
    models that are asked about, as only one of them (or more, that tie) can be left out wrongly;
    the factor m - 1 is Bonferroni's for the others that each is compared with. The set always
    holds the model of the highest sample mean, and all that are not shown to be below some other.

    Args:
        samples: the accuracies of each of m models, one for each seed, in the same order of them.

    Returns:
        For each model its p-value; 1 where no test is possible, so that nothing leaves it out.

    Raises:
        ValueError: if the models do not have equally many accuracies, or have none.

    Example:
        >>> a, b = [0.91, 0.92, 0.93], [0.82, 0.81, 0.80]
        >>> {name: round(p, 3) for name, p in best_p_values({"a": a, "b": b}).items()}
        {'a': 0.995, 'b': 0.005}

    Reference:
        Hsu, "Simultaneous confidence intervals for all distances from the best", Annals of
        Statistics, 1981: multiple comparisons with the best, here with Bonferroni's bound and
        paired tests in the place of a common variance.
    """
    above: dict[str, list[float]] = {name: [] for name in samples}
    for pair in compare_pairs(samples):
        if pair.p is not None:
            half = pair.p / 2
            above[pair.first].append(half if pair.difference < 0 else 1 - half)
            above[pair.second].append(half if pair.difference > 0 else 1 - half)
    others = len(samples) - 1
    return {name: min([1.0, *(others * p for p in values)]) for name, values in above.items()}


def trend(
    depths: Sequence[int], samples: Sequence[Sequence[float]], degree: Literal[1, 2]
) -> TTest:
    """Slope or curvature of accuracy against depth, over seeds.

    For each seed a line or a parabola is fitted to the accuracies by least squares; its leading
    coefficient is tested over seeds. It describes all depths by one number, whether or not they lie
    on the curve.

    Args:
        depths: of each model, its number of hidden layers.
        samples: the accuracies of each model, one for each seed, in the same order of the seeds.
        degree: 1 for the slope, per layer; 2 for the curvature, per squared layer.

    Returns:
        The mean of the coefficient over seeds, its interval and the p-value.

    Raises:
        ValueError: if there are not more different depths than the degree.

    Example:
        >>> round(trend([1, 2, 3], [[0.91, 0.92], [0.92, 0.94], [0.93, 0.96]], 1).mean, 6)
        0.015
    """
    if len(set(depths)) <= degree:
        raise ValueError(
            f"a trend of degree {degree} needs more than {degree} different depths, got {depths}"
        )
    x: Sequence[float] = depths
    if degree == 2:
        # The coefficient of the square is the slope on what a line leaves of the square.
        squares = [depth * depth for depth in depths]
        slope, intercept = linear_regression(depths, squares)
        x = [
            square - (intercept + slope * depth)
            for depth, square in zip(depths, squares, strict=True)
        ]
    return t_test([linear_regression(x, values).slope for values in zip(*samples, strict=True)])
