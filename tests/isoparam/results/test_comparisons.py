"""Comparisons: against scipy and by hand, and on simulated studies of which the truth is known."""

import json
from math import sqrt

import numpy as np
import pytest
from scipy import stats

from isoparam.results.comparisons import (
    LEVEL,
    TTest,
    compare_pairs,
    compare_pooled,
    holm,
    t_test,
    trend,
)


def bounds(studies, probability):
    """A count of that probability falls outside of these once in ten thousand seeds."""
    return stats.binom.interval(1 - 1e-4, studies, probability)


def simulate(studies, means, seeds, deviations=0.001, *, generator):
    """For each study the accuracies of each model, lists of one for each seed.

    A seed moves all models together, as the same order of the images does.
    """
    rng = np.random.default_rng(generator)
    shape = (studies, len(means), seeds)
    shared = rng.normal(0, 0.001, (studies, 1, seeds))
    own = rng.normal(size=shape) * np.broadcast_to(deviations, len(means))[:, None]
    values = 0.98 + np.asarray(means)[:, None] + shared + own
    return [dict(enumerate(study)) for study in values.tolist()]


# One test.


@pytest.mark.parametrize("count", [2, 5, 20])
def test_a_pair_is_compared_as_by_scipy(count):
    (study,) = simulate(1, [0.001, 0], count, generator=count)
    (pair,) = compare_pairs(study)
    expected = stats.ttest_rel(study[0], study[1])
    lo, hi = expected.confidence_interval()
    assert (pair.first, pair.second) == (0, 1)
    assert pair.difference == pytest.approx(np.mean(study[0]) - np.mean(study[1]), abs=1e-15)
    assert pair.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (pair.lo, pair.hi) == pytest.approx((lo, hi), rel=1e-9)
    assert pair.p_adjusted == pair.p


def test_a_test_from_the_table_of_student():
    # t(0.975, 4) = 2.776 is where p is 5 %; the deviation of these is the root of 2.5.
    shift = 2.776 * sqrt(2.5 / 5)
    result = t_test([value - 3 + shift for value in (1, 2, 3, 4, 5)])
    assert result.p == pytest.approx(0.05, abs=1e-4)
    assert result.lo == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    "values", [[0.1], [0.0, 0.0], [0.25, 0.25, 0.25], [0.9867 - 0.9857, 0.9877 - 0.9867]]
)
def test_without_a_spread_there_is_no_test(values):
    assert t_test(values) == TTest(pytest.approx(values[0], abs=1e-15), None, None, None)


def test_a_spread_of_one_image_is_one():
    # One of 100,000 images, in one of two seeds.
    assert t_test([0.001, 0.00101]).p is not None


# Holm's correction.


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        # 3 times 0.01, then 2 times 0.02, then 0.03, which may not be less than the one before.
        ([0.01, 0.02, 0.03], [0.03, 0.04, 0.04]),
        ([0.03, 0.01, 0.02], [0.04, 0.03, 0.04]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.5, 0.9, 0.001], [1.0, 1.0, 0.003]),
        ([0.0, 1.0], [0.0, 1.0]),
    ],
)
def test_holm_by_hand(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted, rel=1e-15)


def test_a_pair_that_cannot_be_tested_counts_in_the_correction():
    one, two = [0.90, 0.92, 0.91], [0.80, 0.84, 0.81]
    pairs = compare_pairs({"a": one, "b": two, "c": [value - 0.25 for value in one]})
    by_names = {(pair.first, pair.second): pair for pair in pairs}
    same = by_names["a", "c"]
    assert (same.lo, same.hi, same.p, same.p_adjusted) == (None, None, None, None)
    others = [by_names["a", "b"], by_names["b", "c"]]
    assert min(pair.p_adjusted for pair in others) == 3 * min(pair.p for pair in others)


def test_one_seed_says_differences_and_no_more():
    study = {"a": [0.9], "b": [0.8], "c": [0.8]}
    pairs = compare_pairs(study)
    assert [pair.difference for pair in pairs] == pytest.approx([0.1, 0.1, 0.0])
    assert {pair[3:] for pair in pairs} == {(None, None, None, None)}
    json.dumps([pair._asdict() for pair in pairs], allow_nan=False)


@pytest.mark.parametrize("compare", [compare_pairs, compare_pooled])
def test_models_of_different_seeds_are_refused(compare):
    with pytest.raises(ValueError, match="over the same seeds, but there are 2 of L1, 1 of L2"):
        compare({"L1": [0.9, 0.8], "L2": [0.9]})


@pytest.mark.parametrize("compare", [compare_pairs, compare_pooled])
def test_models_without_a_seed_are_refused(compare):
    with pytest.raises(ValueError, match="at least one value, got none"):
        compare({"L1": [], "L2": []})


@pytest.mark.parametrize("seeds", [2, 5])
def test_a_single_test_is_wrong_as_often_as_it_says(seeds):
    studies = 10_000
    wrong = sum(
        compare_pairs(study)[0].p <= LEVEL
        for study in simulate(studies, [0, 0], seeds, generator=10 + seeds)
    )
    least, most = bounds(studies, LEVEL)
    assert least <= wrong <= most


@pytest.mark.parametrize("means", [[0, 0, 0, 0], [0, 0, 0, -0.003]], ids=["all", "all but one"])
def test_corrected_pairs_are_wrong_anywhere_as_rarely_as_they_say(means):
    studies = 4_000
    wrong = 0
    for study in simulate(studies, means, 5, [0.001, 0.0005, 0.001, 0.002], generator=20):
        wrong += any(
            pair.p_adjusted <= LEVEL
            for pair in compare_pairs(study)
            if means[pair.first] == means[pair.second]
        )
    _, most = bounds(studies, LEVEL)
    assert 0 < wrong <= most


def test_the_power_is_that_of_the_noncentral_t():
    # The difference of two models has the root of 2 times the deviation of one.
    studies, seeds, effect = 5_000, 10, 0.0015
    noncentrality = sqrt(seeds) * effect / (sqrt(2) * 0.001)
    quantile = stats.t.ppf(1 - LEVEL / 2, seeds - 1)
    power = stats.nct.sf(quantile, seeds - 1, noncentrality) + stats.nct.cdf(
        -quantile, seeds - 1, noncentrality
    )
    assert 0.5 < power < 0.9
    found = sum(
        compare_pairs(study)[0].p <= LEVEL
        for study in simulate(studies, [effect, 0], seeds, generator=30)
    )
    least, most = bounds(studies, power)
    assert least <= found <= most


# All models with one standard deviation.


def test_pooled_pairs_are_those_of_tukey_by_scipy():
    (study,) = simulate(1, [0.001, 0, 0.0005, 0], 6, generator=40)
    found = compare_pooled(study)
    expected = stats.tukey_hsd(*study.values())
    assert len(found.pairs) == 6
    for pair in found.pairs:
        assert pair.p_adjusted == pytest.approx(expected.pvalue[pair.first, pair.second], rel=1e-6)
    assert found.p_equal == pytest.approx(stats.bartlett(*study.values()).pvalue, rel=1e-12)
    variances = [np.var(values, ddof=1) for values in study.values()]
    assert found.deviation == pytest.approx(np.mean(variances) ** 0.5, rel=1e-9)


def test_a_pooled_pair_by_itself_is_that_of_a_pooled_t_test():
    (study,) = simulate(1, [0.001, 0], 6, generator=41)
    (pair,) = compare_pooled(study).pairs
    expected = stats.ttest_ind(study[0], study[1])
    assert pair.p == pytest.approx(expected.pvalue, rel=1e-9)
    lo, hi = expected.confidence_interval()
    assert (pair.lo, pair.hi) == pytest.approx((lo, hi), rel=1e-9)
    assert pair.p_adjusted == pytest.approx(expected.pvalue, rel=1e-4)


def test_the_level_with_equal_deviations_is_the_promised_one():
    study = {name: [0.98, 0.981, 0.982] for name in "abcd"}
    assert compare_pooled(study).level == pytest.approx(LEVEL, abs=0.01)


def test_the_level_with_unequal_deviations_is_higher_and_reported():
    study = {name: [0.98, 0.9801, 0.9802] for name in "abcdefg"} | {"h": [0.96, 0.98, 1.0]}
    assert compare_pooled(study).level > 2 * LEVEL


@pytest.mark.parametrize("study", [{"a": [0.9], "b": [0.8]}, {"a": [0.9, 0.9], "b": [0.8, 0.9]}])
def test_without_a_spread_nothing_is_pooled(study):
    found = compare_pooled(study)
    assert found[1:4] == (None, None, None)
    assert [pair.p_adjusted for pair in found.pairs] == [None]


# The set of models that may be the best.


def test_of_two_models_the_p_values_are_those_of_the_one_sided_test():
    (study,) = simulate(1, [0.001, 0], 5, generator=40)
    second_better = stats.ttest_ind(study[1], study[0], alternative="greater").pvalue
    found = compare_pooled(study).p_best
    assert found == pytest.approx({0: second_better, 1: 1 - second_better}, abs=1e-4)


def test_without_a_spread_every_model_may_be_the_best():
    assert compare_pooled({"a": [0.9], "b": [0.8]}).p_best == {"a": 1.0, "b": 1.0}


def test_each_model_is_held_against_all_others_at_once():
    """If all means are equal, how often another leads by as much: by simulation."""
    seeds, models, studies = 5, 4, 100_000
    (study,) = simulate(1, [0, 0.0005, 0, 0.001], seeds, generator=42)
    found = compare_pooled(study)
    draws = np.random.default_rng(0).standard_normal((studies, models, seeds))
    means, deviations = draws.mean(2), draws.var(2, ddof=1).mean(1) ** 0.5
    leads = (np.delete(means, 0, 1).max(1) - means[:, 0]) / deviations
    for name, values in study.items():
        best = max(np.mean(others) for other, others in study.items() if other != name)
        lead = (best - np.mean(values)) / found.deviation
        assert found.p_best[name] == pytest.approx((leads >= lead).mean(), abs=0.006)


# The trend.


DEPTHS = [1, 2, 3, 5, 8]


@pytest.mark.parametrize("degree", [1, 2])
def test_a_trend_is_that_of_a_fit_for_each_seed(degree):
    (study,) = simulate(1, [0.001 * depth for depth in DEPTHS], 6, generator=50)
    values = np.array(list(study.values()))
    coefficients = np.polyfit(DEPTHS, values, degree)[0]
    expected = stats.ttest_1samp(coefficients, 0)
    result = trend(DEPTHS, values.tolist(), degree)
    assert result.mean == pytest.approx(coefficients.mean(), rel=1e-9)
    assert result.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (result.lo, result.hi) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)


@pytest.mark.parametrize(("degree", "expected"), [(1, 0.003), (2, -0.0005)])
def test_trends_by_hand(degree, expected):
    # 0.9 + 0.005 d - 0.0005 d^2 at 1, 2, 3; the line through it has the slope between its ends.
    one = [0.9 + 0.005 * d - 0.0005 * d * d for d in (1, 2, 3)]
    result = trend([1, 2, 3], [[value, value + 0.01] for value in one], degree)
    assert result.mean == pytest.approx(expected, rel=1e-9)
    # Both seeds have the same: rounding is not taken for a spread.
    assert result.p is None


@pytest.mark.parametrize("degree", [1, 2])
def test_intervals_of_a_trend_cover_as_often_as_they_say(degree):
    studies = 3_000
    truth = {1: -0.0002, 2: 0.00005}[degree]
    covered = 0
    for study in simulate(studies, [truth * d**degree for d in DEPTHS], 5, generator=60 + degree):
        result = trend(DEPTHS, list(study.values()), degree)
        covered += result.lo <= truth <= result.hi
    least, most = bounds(studies, 0.95)
    assert least <= covered <= most


@pytest.mark.parametrize(("depths", "degree"), [([], 1), ([2], 1), ([2, 2], 1), ([2, 3, 2], 2)])
def test_too_few_depths_have_no_trend(depths, degree):
    message = f"a trend of degree {degree} needs more than {degree} different depths, got"
    with pytest.raises(ValueError, match=message):
        trend(depths, [[0.9, 0.8]] * len(depths), degree)
