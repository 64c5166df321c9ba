"""Intervals over seeds and test images: against scipy, and whether they cover what they say."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from isoparam.results.statistics import Estimate, described, estimate, on_logit_scale

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=100)

ACCURACIES = st.lists(st.floats(0, 1), min_size=2, max_size=30)


@FIXED
@given(ACCURACIES)
def test_interval_is_that_of_student(values):
    count = len(values)
    mean, deviation, lo, hi = estimate(values)
    # In units of rounding, of numbers up to 1: the sums over the values, then a few operations.
    bound = (2 * count + 8) * 2**-53
    assert mean == pytest.approx(np.mean(values), abs=bound)
    assert deviation == pytest.approx(np.std(values, ddof=1), abs=bound)
    scale = deviation / sqrt(count)
    expected = stats.t.interval(0.95, count - 1, loc=mean, scale=scale) if scale else (mean, mean)
    # The quantile, 12.8 at most, multiplies them.
    assert lo == pytest.approx(expected[0], abs=14 * bound)
    assert hi == pytest.approx(expected[1], abs=14 * bound)
    assert lo <= mean <= hi


def test_an_interval_from_the_table_of_student():
    # t(0.975, 4) = 2.776; the deviation of 1 to 5 is the root of 2.5.
    mean, deviation, lo, hi = estimate([1, 2, 3, 4, 5])
    assert mean == 3
    assert deviation == sqrt(2.5)
    assert hi - mean == pytest.approx(2.776 * sqrt(2.5 / 5), rel=2e-4)
    assert mean - lo == pytest.approx(hi - mean, rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.987, 1.0])
def test_one_value_has_a_mean_and_nothing_else(value):
    assert estimate([value]) == Estimate(value, None, None, None)


@pytest.mark.parametrize("values", [[], ()])
def test_no_value_has_no_estimate(values):
    with pytest.raises(ValueError, match="an estimate needs at least one value, got none"):
        estimate(values)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.987, 1.0])
def test_equal_values_have_an_interval_of_no_width(value, count):
    mean, deviation, lo, hi = estimate([value] * count)
    # The sum and the quotient round once each.
    assert mean == pytest.approx(value, rel=2 * 2**-53)
    assert deviation == 0
    assert lo == mean == hi


@FIXED
@given(ACCURACIES, st.randoms(use_true_random=False))
def test_the_order_of_the_values_does_not_matter(values, random):
    shuffled = random.sample(values, len(values))
    assert estimate(shuffled) == estimate(values)


@pytest.mark.parametrize("count", [2, 5, 10])
def test_intervals_cover_the_mean_as_often_as_they_say(count):
    samples, mean = 10_000, 0.98
    values = np.random.default_rng(count).normal(mean, 0.001, (samples, count)).tolist()
    covered = sum(lo <= mean <= hi for _, _, lo, hi in map(estimate, values))
    # A correct interval falls outside of these bounds once in ten thousand seeds.
    least, most = stats.binom.interval(1 - 1e-4, samples, 0.95)
    assert 0.94 * samples < least <= covered <= most < 0.96 * samples


@FIXED
@given(st.floats(0, 1), st.floats(0, 1))
def test_the_interval_of_a_share_stays_in_range(share, half):
    lo, hi = on_logit_scale(share, half)
    assert 0 <= lo <= share <= hi <= 1


def test_short_intervals_of_a_share_are_those_of_its_own_scale():
    lo, hi = on_logit_scale(0.986, 1e-5)
    assert (lo, hi) == pytest.approx((0.986 - 1e-5, 0.986 + 1e-5), abs=1e-8)


@pytest.mark.parametrize(
    ("probability", "images", "seeds"),
    [(0.99, 300, 5), (0.995, 300, 10), (0.97, 270, 3), (0.986, 10_000, 10)],
)
def test_intervals_of_accuracies_near_1_cover_as_often_as_they_say(probability, images, seeds):
    studies, rng = 4_000, np.random.default_rng(seeds)
    covered = 0
    for values in (rng.binomial(images, probability, (studies, seeds)) / images).tolist():
        found = described("accuracy", values)
        assert 0 <= found["accuracy_lo"] <= found["accuracy_hi"] <= 1
        covered += found["accuracy_lo"] <= probability <= found["accuracy_hi"]
    assert 0.94 <= covered / studies <= 0.97


def test_an_estimate_is_described_by_names_in_the_order_of_its_parts():
    values = [0.5, 0.6, 0.9]
    mean, deviation, lo, hi = estimate(values)
    assert list(described("loss", values, share=False).items()) == [
        ("loss", mean),
        ("loss_sd", deviation),
        ("loss_lo", lo),
        ("loss_hi", hi),
    ]
    lo, hi = on_logit_scale(mean, hi - mean)
    assert described("accuracy", values, prefix="val", deviation=False) == {
        "accuracy": mean,
        "val_lo": lo,
        "val_hi": hi,
    }


@pytest.mark.parametrize("share", [1.01, -0.5, float("nan")])
def test_shares_that_cannot_be_are_refused(share):
    with pytest.raises(ValueError, match=rf"a share must lie in \[0, 1\], got {share}"):
        on_logit_scale(share, 0.1)
