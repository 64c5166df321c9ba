"""Means over seeds, with their intervals."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.special import expit, logit, stdtrit


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


def on_logit_scale(share: float, half: float) -> tuple[float, float]:
    """An interval of a share that stays within [0, 1].

    expit(logit(share) +- half / (share (1 - share)))

    The share's standard error, and so half the length of its interval, is carried over to the
    logit, log(share / (1 - share)), to first order.

    Args:
        share: in [0, 1], such as an accuracy.
        half: half the length of its interval on its own scale, 0 or more.

    Returns:
        Both ends of the interval, in [0, 1]; for a share of 0 or 1, its value alone.

    Raises:
        ValueError: if the share is out of range.

    Example:
        >>> [round(end, 4) for end in on_logit_scale(0.99, 0.02)]
        [0.9292, 0.9987]

    Reference:
        Brown, Cai and DasGupta, "Interval estimation for a binomial proportion", Statistical
        Science, 2001, section 4.1.2.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share must lie in [0, 1], got {share}")
    if share in (0, 1):
        return share, share
    centre, distance = logit(share), half / (share * (1 - share))
    # Rounding could carry an end of a short interval over the share.
    return min(float(expit(centre - distance)), share), max(float(expit(centre + distance)), share)


def described(
    name: str,
    values: Sequence[float],
    *,
    share: bool = True,
    prefix: str | None = None,
    deviation: bool = True,
) -> dict[str, float | None]:
    """An estimate as columns of a table or keys of metrics.

    Args:
        name: of the mean.
        values: one for each seed, 1 or more.
        share: whether they are shares, such as accuracies; their interval is on the logit's scale.
        prefix: what the names of the others begin with, `name` if None.
        deviation: whether the standard deviation is among them.

    Returns:
        By name the mean, ..._sd, ..._lo and ..._hi.

    Raises:
        ValueError: if there is no value, or a mean share is out of range.

    Example:
        >>> described("test_accuracy", [0.5], prefix="test")
        {'test_accuracy': 0.5, 'test_sd': None, 'test_lo': None, 'test_hi': None}
    """
    found = estimate(values)
    if share and found.hi is not None:
        lo, hi = on_logit_scale(found.mean, found.hi - found.mean)
        found = found._replace(lo=lo, hi=hi)
    prefix = prefix or name
    sd = {f"{prefix}_sd": found.deviation} if deviation else {}
    return {name: found.mean, **sd, f"{prefix}_lo": found.lo, f"{prefix}_hi": found.hi}
