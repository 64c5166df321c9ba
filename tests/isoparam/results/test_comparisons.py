"""Comparisons: against scipy, at their limits, and on simulated studies with known truth."""

import json

import numpy as np
import pytest
from conftest import slow
from scipy import stats

from isoparam.results.comparisons import (
    LEVEL,
    Crossed,
    compare_pooled,
    dunnett,
    tukey,
)


def bounds(studies, probability):
    """A count of that probability falls outside of these once in ten thousand seeds."""
    return stats.binom.interval(1 - 1e-4, studies, probability)


def simulate(studies, means, seeds, *, generator):
    """For each study the accuracies of each model, lists of one for each seed."""
    rng = np.random.default_rng(generator)
    own = rng.normal(0, 0.001, (studies, len(means), seeds))
    values = 0.98 + np.asarray(means)[:, None] + own
    return [dict(enumerate(study)) for study in values.tolist()]


def crossed(generator, models, seeds, images, *, seed_deviation=0.0):
    """Right answers of models of equal quality: most images are easy or hard for all of them."""
    common = generator.normal(0, 1, images)
    own = generator.normal(0, 0.25, (models, 1, images))
    quality = generator.normal(0, seed_deviation, (models, seeds, 1))
    rest = generator.normal(0, 0.3, (models, seeds, images))
    return dict(enumerate(1.8 + common + own + quality + rest > 0))


# The chances of the tests of many.


@pytest.mark.parametrize("freedom", [2.0, 9.0, 72.5])
@pytest.mark.parametrize("others", [1, 7])
def test_dunnetts_chance_is_that_of_the_multivariate_t(others, freedom):
    correlation = 0.5 + 0.5 * np.eye(others)
    for t in (-1.0, 0.5, 2.0, 4.0):
        if others == 1:
            expected = stats.t.sf(t, freedom)
        else:
            law = stats.multivariate_t(shape=correlation, df=freedom)
            expected = 1 - law.cdf([t] * others, random_state=0)
        # scipy integrates over random points.
        assert dunnett(t, others, freedom) == pytest.approx(expected, abs=1e-3)


def test_with_two_models_tukey_is_the_t_test():
    assert tukey(-2.5, 2, 9.5) == pytest.approx(2 * stats.t.sf(2.5, 9.5), rel=1e-6)


# New seeds and new images.


def test_equal_seeds_leave_the_paired_test_over_images():
    rng = np.random.default_rng(0)
    values = {name: np.tile(rng.normal(size=40), (3, 1)) for name in "ab"}
    study = Crossed(values)
    (pair,) = study.pairs()
    expected = stats.ttest_rel(values["a"][0], values["b"][0])
    assert pair.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (pair.lo, pair.hi) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)
    assert study.seed_deviation == 0


def test_equal_images_leave_the_pooled_tests_over_seeds():
    (samples,) = simulate(1, [0.002, 0, 0.001, 0], 6, generator=1)
    study = Crossed({name: np.tile(each, (50, 1)).T for name, each in samples.items()})
    expected = compare_pooled(samples)
    for pair, other in zip(study.pairs(), expected.pairs, strict=True):
        assert pair == pytest.approx(other, rel=1e-6, abs=1e-12)
    assert study.p_best() == pytest.approx(expected.p_best, rel=1e-6)
    assert study.seed_deviation == pytest.approx(expected.deviation, rel=1e-6)


def test_the_parts_of_the_variance_are_found():
    rng = np.random.default_rng(2)
    models, seeds, images = 20, 10, 400
    parts = {"images": 0.5, "seed": 0.1, "rest": 2.0}
    values = (
        rng.normal(0, parts["images"], (models, 1, images))
        + rng.normal(0, parts["seed"], (models, seeds, 1))
        + rng.normal(0, parts["rest"], (models, seeds, images))
    )
    study = Crossed(dict(enumerate(values)))
    assert study.seed_deviation == pytest.approx(parts["seed"], rel=0.15)
    variance = 2 * (
        parts["images"] ** 2 / images
        + parts["seed"] ** 2 / seeds
        + parts["rest"] ** 2 / (seeds * images)
    )
    halves = [(pair.hi - pair.lo) / 2 for pair in study.pairs()]
    assert np.mean(halves) == pytest.approx(1.96 * variance**0.5, rel=0.05)


@pytest.fixture
@slow
def many_studies():
    """So many simulated studies that a level is found to a percentage point."""
    return 500


def check_level(models, seeds, images, seed_deviation, *, studies):
    """In studies of equal models, how often anything is found, or the best is left out."""
    rng = np.random.default_rng(seeds)
    found = left_out = covered = pairs = 0
    for _ in range(studies):
        study = Crossed(crossed(rng, models, seeds, images, seed_deviation=seed_deviation))
        tested = [pair for pair in study.pairs() if pair.p is not None]
        found += any(pair.p_adjusted <= LEVEL for pair in tested)
        left_out += study.p_best()[0] <= LEVEL
        covered += sum(pair.p > LEVEL for pair in tested)
        pairs += len(tested)
    _, most = bounds(studies, LEVEL + 0.01)
    assert 0.02 * studies <= found <= most
    assert 0.02 * studies <= left_out <= most
    assert 0.93 <= covered / pairs <= 0.98


def test_the_level_for_new_seeds_and_images_is_the_promised_one():
    check_level(2, 5, 400, 0.1, studies=300)


@pytest.mark.parametrize(
    ("models", "seeds", "images", "seed_deviation"),
    [(2, 5, 500, 0.0), (2, 5, 500, 0.2), (3, 3, 400, 0.1), (4, 10, 300, 0.05)],
)
def test_the_level_is_the_promised_one_for_more_models(
    models, seeds, images, seed_deviation, many_studies
):
    check_level(models, seeds, images, seed_deviation, studies=many_studies)


def test_seeds_alone_find_what_new_images_do_not_show():
    """The tests for these images, taken as tests for others, raise too many false alarms."""
    studies, rng = 500, np.random.default_rng(3)
    alone = 0
    for _ in range(studies):
        accuracies = [right.mean(1) for right in crossed(rng, 2, 5, 500).values()]
        alone += stats.ttest_ind(*accuracies).pvalue <= LEVEL
    assert alone / studies > 2 * LEVEL


def test_intervals_of_an_accuracy_cover_it_and_stay_in_range():
    studies, rng = 1_000, np.random.default_rng(4)
    truth = stats.norm.cdf(1.8 / (1 + 0.25**2 + 0.3**2 + 0.05**2) ** 0.5)
    covered = 0
    for _ in range(studies):
        (values,) = crossed(rng, 1, 5, 300, seed_deviation=0.05).values()
        found = Crossed({"a": values}).interval("a")
        assert 0 <= found.lo <= found.mean <= found.hi <= 1
        covered += found.lo <= truth <= found.hi
    assert 0.93 <= covered / studies <= 0.97


@pytest.mark.parametrize(
    "values",
    [
        {"a": np.ones((1, 5)), "b": np.zeros((1, 5))},
        {"a": np.ones((2, 1)), "b": np.zeros((2, 1))},
        {"a": np.ones((2, 5)), "b": np.zeros((2, 5))},
    ],
    ids=["one seed", "one image", "no spread"],
)
def test_without_a_spread_there_is_no_test(values):
    study = Crossed(values)
    (pair,) = study.pairs()
    assert pair == ("a", "b", 1.0, None, None, None, None)
    assert study.p_best() == {"a": 1.0, "b": 1.0}
    assert study.interval("a") == (1.0, None, None, None)
    json.dumps(pair._asdict(), allow_nan=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": np.ones((2, 5)), "b": np.ones((3, 5))}, r"\(2, 5\) of a, \(3, 5\) of b"),
        ({"a": np.ones(5)}, r"same seeds and images, got \(5,\) of a"),
        ({"a": np.ones((0, 5))}, r"at least one seed and one image, got \(0, 5\)"),
        ({}, "same seeds and images, got"),
    ],
)
def test_models_of_different_seeds_or_images_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Crossed(values)


# The trend.


DEPTHS = {"a": 1, "b": 2, "c": 3, "d": 5, "e": 8}


@pytest.mark.parametrize("degree", [1, 2])
def test_a_trend_is_the_leading_coefficient_of_a_fit(degree):
    rng = np.random.default_rng(degree)
    values = {name: rng.normal(0.1 * d, 1, (4, 30)) for name, d in DEPTHS.items()}
    means = [each.mean() for each in values.values()]
    expected = np.polyfit([*DEPTHS.values()], means, degree)[0]
    assert Crossed(values).trend(DEPTHS, degree).mean == pytest.approx(expected, rel=1e-9)


def test_equal_seeds_leave_the_test_of_each_images_slope():
    rng = np.random.default_rng(5)
    values = {name: np.tile(rng.normal(size=30), (3, 1)) for name in DEPTHS}
    slopes = np.polyfit([*DEPTHS.values()], np.array([each[0] for each in values.values()]), 1)[0]
    expected = stats.ttest_1samp(slopes, 0)
    found = Crossed(values).trend(DEPTHS, 1)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize(("depths", "degree"), [([2], 1), ([2, 2], 1), ([2, 3, 2], 2)])
def test_too_few_depths_have_no_trend(depths, degree):
    study = Crossed({index: np.ones((2, 3)) for index in range(len(depths))})
    message = f"a trend of degree {degree} needs more than {degree} different depths, got"
    with pytest.raises(ValueError, match=message):
        study.trend(dict(enumerate(depths)), degree)


# New seeds alone.


def test_models_of_different_numbers_of_seeds_are_refused():
    with pytest.raises(ValueError, match="over the same seeds, but there are 2 of L1, 1 of L2"):
        compare_pooled({"L1": [0.9, 0.8], "L2": [0.9]})


def test_models_without_a_seed_are_refused():
    with pytest.raises(ValueError, match="at least one value, got none"):
        compare_pooled({"L1": [], "L2": []})


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
