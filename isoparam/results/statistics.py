"""Means over seeds and shares of test images, with their intervals."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.special import ndtri, stdtrit


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
        The estimate; a single value has no deviation and no interval.

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


def described(
    name: str, values: Sequence[float], *, prefix: str | None = None, deviation: bool = True
) -> dict[str, float | None]:
    """An estimate as columns of a table or keys of metrics.

    Args:
        name: of the mean.
        values: one for each seed, 1 or more.
        prefix: what the names of the others begin with, `name` if None.
        deviation: whether the standard deviation is among them.

    Returns:
        By name the mean, ..._sd, ..._lo and ..._hi.

    Raises:
        ValueError: if there is no value.

    Example:
        >>> described("test_accuracy", [0.5], prefix="test")
        {'test_accuracy': 0.5, 'test_sd': None, 'test_lo': None, 'test_hi': None}
    """
    found = estimate(values)
    prefix = prefix or name
    sd = {f"{prefix}_sd": found.deviation} if deviation else {}
    return {name: found.mean, **sd, f"{prefix}_lo": found.lo, f"{prefix}_hi": found.hi}


class Share(NamedTuple):
    """A share of independent trials with its 95 % interval.

    Attributes:
        share: the observed share.
        standard_error: sqrt(share (1 - share) / trials).
        lo: lower end of the interval.
        hi: upper end of the interval.
    """

    share: float
    standard_error: float
    lo: float
    hi: float


def share_of_trials(share: float, trials: int) -> Share:
    """Standard error and 95 % interval, by Wilson's score, of a share of independent trials.

    (share + z^2 / 2N +- z sqrt(share (1 - share) / N + z^2 / 4N^2)) / (1 + z^2 / N), z = 1.96

    For the accuracy of a network on N test images this is the uncertainty due to the choice of the
    images. For the mean accuracy of several networks it is an upper bound: the mean of several
    answers to an image varies no more than one answer.

    Args:
        share: in [0, 1]; times `trials` it need not be whole.
        trials: N, 1 or more.

    Returns:
        The share with its standard error and interval, which lies in [0, 1].

    Raises:
        ValueError: if the share or the number of trials is out of range.

    Example:
        >>> [round(number, 4) for number in share_of_trials(0.9, 100)]
        [0.9, 0.03, 0.8256, 0.9448]

    Reference:
        Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
        the American Statistical Association, 1927.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share must lie in [0, 1], got {share}")
    if trials < 1:
        raise ValueError(f"a share needs at least one trial, got {trials}")
    z = float(ndtri(0.975))
    variance = share * (1 - share) / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * (variance + (z / (2 * trials)) ** 2) ** 0.5 / scale
    # At shares of 0 and 1 rounding could carry an end over them.
    return Share(share, variance**0.5, max(centre - half, 0.0), min(centre + half, 1.0))
