"""Means over seeds and their intervals."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.special import stdtrit


class Estimate(NamedTuple):
    """Mean of a sample with its 95 % interval.

    Attributes:
        mean: the sample's mean.
        deviation: standard deviation of the sample (n - 1 in the denominator); None for n = 1.
        lo: lower end of the interval; None for n = 1.
        hi: upper end of the interval; None for n = 1.
    """

    mean: float
    deviation: float | None
    lo: float | None
    hi: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation and 95 % interval of the mean by Student's t.

    mean +- t(0.975, n - 1) deviation / sqrt(n)

    Args:
        values: one for each seed, 1 or more.

    Returns:
        The estimate; from a single value no deviation and no interval can be told.

    Raises:
        ValueError: if there is no value.

    Example:
        >>> estimate([0.5, 0.6, 0.7]).mean
        0.6
        >>> estimate([0.5])
        Estimate(mean=0.5, deviation=None, lo=None, hi=None)

    Reference:
        Student, "The probable error of a mean", Biometrika, 1908.
    """
    if not values:
        raise ValueError("an estimate needs at least one value, got none")
    mean = fmean(values)
    if len(values) == 1:
        return Estimate(mean, None, None, None)
    deviation = stdev(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * deviation / len(values) ** 0.5
    return Estimate(mean, deviation, mean - half, mean + half)
