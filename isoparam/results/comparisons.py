"""Which differences between models exceed those between seeds.

All tests ask what other initial weights and orders of the images would change, on the same
training, validation and test images.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean, linear_regression
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit
from scipy.stats import bartlett, dunnett, studentized_range

from isoparam.results.statistics import estimate

# The chance of a false alarm in each family of tests.
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
    """Two models compared.

    Attributes:
        first: name of a model.
        second: name of another.
        difference: mean of the first less that of the second.
        lo: lower end of its 95 % interval, for this pair alone; None where no test is possible.
        hi: upper end of it; None where no test is possible.
        p: two-sided p-value, for this pair alone; None where no test is possible.
        p_adjusted: p-value corrected for the number of pairs; None where no test is possible.
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
        The mean, its interval and the p-value. No test is possible with one value, or with values
        that are equal up to rounding.

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
    _check_counts(samples)
    names = list(combinations(samples, 2))
    tests = [
        t_test([a - b for a, b in zip(samples[first], samples[second], strict=True)])
        for first, second in names
    ]
    adjusted = holm([1.0 if test.p is None else test.p for test in tests])
    return [
        Pair(*pair, test.mean, test.lo, test.hi, test.p, None if test.p is None else p_adjusted)
        for pair, test, p_adjusted in zip(names, tests, adjusted, strict=True)
    ]


class Pooled(NamedTuple):
    """All models compared over seeds by one common standard deviation.

    Attributes:
        pairs: one for each pair, in the order of the models.
        deviation: the common standard deviation over seeds; None where no test is possible.
        p_equal: p-value of the hypothesis that the models' deviations are equal, by Bartlett's
            test; None where no test is possible.
        level: share of studies with a false alarm if the models have equal means and the
            deviations found here, by simulation; None where no test is possible.
        p_best: for each model the p-value of the hypothesis that no other has a higher mean; 1
            where no test is possible, so that nothing leaves it out.
    """

    pairs: list[Pair]
    deviation: float | None
    p_equal: float | None
    level: float | None
    p_best: dict[str, float]


def compare_pooled(samples: Mapping[str, Sequence[float]]) -> Pooled:
    """Compare all models by one standard deviation: all pairs, and each with the best.

    Tukey's test corrects each pair for their number. Hsu's comparison with the best tests
    each model against all others at once; the models with p_best > 5 % are a 95 % confidence set of
    the best, which excludes the truly best one in at most 5 % of all studies.

    Args:
        samples: the accuracies of each model, one for each seed.

    Returns:
        The comparison. It assumes that the seeds of different models are independent.

    Raises:
        ValueError: if the models do not have equally many accuracies, or have none.

    Example:
        >>> found = compare_pooled({"a": [0.9, 0.8], "b": [0.6, 0.7], "c": [0.6, 0.5]})
        >>> [(pair.first, pair.second, round(pair.p_adjusted, 3)) for pair in found.pairs]
        [('a', 'b', 0.129), ('a', 'c', 0.048), ('b', 'c', 0.439)]

    Reference:
        Tukey, "The problem of multiple comparisons", 1953; Hsu, "Simultaneous confidence intervals
        for all distances from the best", Annals of Statistics, 1981; Bartlett, "Properties of
        sufficiency and statistical tests", Proceedings of the Royal Society A, 1937.
    """
    _check_counts(samples)
    estimates = {name: estimate(values) for name, values in samples.items()}
    means = {name: found.mean for name, found in estimates.items()}
    names = list(combinations(samples, 2))
    count = len(next(iter(samples.values()), ()))
    spreads = [found.deviation or 0.0 for found in estimates.values()]
    if len(spreads) < 2 or min(spreads) <= SAME:
        pairs = [Pair(a, b, means[a] - means[b], None, None, None, None) for a, b in names]
        return Pooled(pairs, None, None, None, dict.fromkeys(samples, 1.0))
    deviation = fmean(spread * spread for spread in spreads) ** 0.5
    freedom = len(samples) * (count - 1)
    error = deviation * (2 / count) ** 0.5
    half = float(stdtrit(freedom, 0.975)) * error
    pairs = []
    for a, b in names:
        difference = means[a] - means[b]
        t = abs(difference) / error
        p = 2 * float(stdtr(freedom, -t))
        adjusted = float(studentized_range.sf(t * 2**0.5, len(samples), freedom))
        pairs.append(Pair(a, b, difference, difference - half, difference + half, p, adjusted))
    p_equal = float(bartlett(*samples.values()).pvalue)
    p_best = {name: _p_best(name, samples) for name in samples}
    return Pooled(pairs, deviation, p_equal, _level(spreads, count), p_best)


def _p_best(name: str, samples: Mapping[str, Sequence[float]]) -> float:
    """The least p-value of one-sided Dunnett tests of the others against this model."""
    others = [values for other, values in samples.items() if other != name]
    # The integral uses random points, the same each time.
    found = dunnett(*others, control=samples[name], alternative="greater", rng=0)
    return float(found.pvalue.min())


def _level(spreads: Sequence[float], count: int) -> float:
    """Share of 20,000 simulated studies of equal means in which Tukey's test finds a difference."""
    draws = np.random.default_rng(0).standard_normal((20_000, count, len(spreads))) * spreads
    means, variances = draws.mean(1), draws.var(1, ddof=1).mean(1)
    ranges = (means.max(1) - means.min(1)) / (variances / count) ** 0.5
    least = studentized_range.isf(LEVEL, len(spreads), len(spreads) * (count - 1))
    return float((ranges > least).mean())


def _check_counts(samples: Mapping[str, Sequence[float]]) -> None:
    counts = {name: len(values) for name, values in samples.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise ValueError(f"models are compared over the same seeds, but there are {listed}")


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
        # The coefficient of the square is the slope on the square's residual after a linear fit.
        squares = [depth * depth for depth in depths]
        slope, intercept = linear_regression(depths, squares)
        x = [
            square - (intercept + slope * depth)
            for depth, square in zip(depths, squares, strict=True)
        ]
    return t_test([linear_regression(x, values).slope for values in zip(*samples, strict=True)])
