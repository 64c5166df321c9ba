"""Which differences between models hold for new seeds and new test images, or for new seeds alone.

A seed fixes initial weights and the order of the images. The training and validation images are the
same throughout.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtr, stdtr, stdtrit
from scipy.stats import bartlett, studentized_range

from isoparam.results.statistics import estimate, on_logit_scale

# The chance of a false alarm in each family of tests.
LEVEL = 0.05

# Points and weights of integrals over a standard normal and over a uniform variable.
NORMAL = np.polynomial.hermite_e.hermegauss(64)
UNIFORM = np.polynomial.legendre.leggauss(64)

# Accuracies on N images differ by 1/N or not at all: what is below this is rounding.
SAME = 1e-12


class TTest(NamedTuple):
    """Student's t test of whether a mean is zero.

    Attributes:
        mean: the estimate.
        lo: lower end of its 95 % interval; None where no test is possible.
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
        difference: mean of the first minus that of the second.
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


def tukey(t: float, models: int, freedom: float) -> float:
    """Chance that any two of equal models differ by |t| standard errors or more: Tukey's test.

    Example:
        >>> round(tukey(3.03, models=8, freedom=1e6), 3)  # the upper 5 % point is 4.29 / sqrt(2)
        0.05

    Reference:
        Tukey, "The problem of multiple comparisons", 1953; with degrees of freedom of each pair,
        Games and Howell, "Pairwise multiple comparison procedures with unequal n's and/or
        variances", Journal of Educational Statistics, 1976.
    """
    return float(studentized_range.sf(abs(t) * 2**0.5, models, freedom))


def dunnett(t: float, others: int, freedom: float) -> float:
    """Chance that any of K equal models leads another by t standard errors or more: Dunnett's test.

    1 - E [Phi(z + sqrt(2) t s)^K], z standard normal, s^2 chi-squared over its degrees of freedom

    Example:
        >>> round(dunnett(2.34, others=7, freedom=1e6), 3)  # the upper 5 % point
        0.05

    Reference:
        Dunnett, "A multiple comparison procedure for comparing several treatments with a control",
        Journal of the American Statistical Association, 1955.
    """
    (z, z_weights), (u, u_weights) = NORMAL, UNIFORM
    s = (gammaincinv(freedom / 2, (u + 1) / 2) * 2 / freedom) ** 0.5
    below = ndtr(z[:, None] + 2**0.5 * t * s) ** others
    within = float(z_weights @ below @ u_weights / np.sqrt(8 * np.pi))
    return max(0.0, 1 - within)  # rounding could carry it below


class Crossed:
    """Models compared for new seeds and new test images, by a two-way random-effects model.

    y(m, r, i) = mean(m) + image(m, i) + seed(m, r) + rest(m, r, i)

    is the result of model m with seed r on image i. The seeds of a model see the same N images, so
    that an image which is hard for all models cancels in a difference. The variance of a contrast
    sum over m of c(m) mean(m) is

    var over i of (sum over m of c(m) y(m, i)) / N  +  sum of c^2 (MS_seed - MS_rest) / (R N)

    with y(m, i) the mean over seeds, MS_seed N times the variance over seeds of a model's mean, and
    MS_rest the mean square of what seeds and images do not explain, both pooled over models. If
    MS_seed is below MS_rest, no seed is better on all images, and the second term is dropped. The
    degrees of freedom are Satterthwaite's.

    Args:
        values: of each model (R, N), of any dtype: whether each seed is right on each test image,
            or its log-likelihood; larger is better.

    Attributes:
        means: of each model, over seeds and images.
        seed_deviation: standard deviation over seeds of a model's mean on infinitely many images,
            0 where the term is dropped; None for one seed.

    Raises:
        ValueError: if there is no model, or the shapes differ or have no value.

    Example:
        >>> right = {"a": [[1, 1, 0, 1], [1, 1, 1, 1]], "b": [[1, 0, 0, 0], [1, 0, 0, 1]]}
        >>> study = Crossed({name: np.array(each) for name, each in right.items()})
        >>> [(pair.difference, round(pair.p, 3)) for pair in study.pairs()]
        [(0.5, 0.092)]

    Reference:
        Searle, Casella and McCulloch, "Variance Components", 1992, section 4.5; Satterthwaite, "An
        approximate distribution of estimates of variance components", Biometrics Bulletin, 1946.
    """

    def __init__(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Keep the means of each image, and the two mean squares."""
        shapes = {name: np.shape(each) for name, each in values.items()}
        if len(set(shapes.values())) != 1 or len(shape := next(iter(shapes.values()))) != 2:
            listed = ", ".join(f"{shape} of {name}" for name, shape in shapes.items())
            raise ValueError(f"models are compared over the same seeds and images, got {listed}")
        if not all(shape):
            raise ValueError(f"a comparison needs at least one seed and one image, got {shape}")
        self._seeds, self._images = shape
        by_image, seed_squares, rest_squares = [], 0.0, 0.0
        for each in values.values():
            exact = np.asarray(each, np.float64)  # (R, N)
            by_image.append(exact.mean(0))
            offsets = exact.mean(1) - exact.mean()  # (R,)
            seed_squares += self._images * float(offsets @ offsets)
            rest_squares += float(((exact - by_image[-1] - offsets[:, None]) ** 2).sum())
        self._by_image = np.stack(by_image)  # (M, N)
        self.means = dict(zip(values, self._by_image.mean(1).tolist(), strict=True))
        self.seed_deviation: float | None = None
        if self._seeds > 1:
            # Degrees of freedom of MS_seed; MS_rest has N - 1 times as many.
            self._freedom = len(values) * (self._seeds - 1)
            self._seed = seed_squares / self._freedom
            self._rest = rest_squares / (self._freedom * max(1, self._images - 1))
            self.seed_deviation = max(0.0, (self._seed - self._rest) / self._images) ** 0.5

    def test(self, weights: Mapping[str, float]) -> TTest:
        """Test whether a contrast of the models' means is zero.

        Args:
            weights: c of each model; 0 where one is missing.

        Returns:
            The test. None is possible with one seed, with one image, or without any spread.
        """
        mean, error, freedom = self._estimate(weights)
        if not error:
            return TTest(mean, None, None, None)
        half = float(stdtrit(freedom, 0.975)) * error
        return TTest(mean, mean - half, mean + half, 2 * float(stdtr(freedom, -abs(mean) / error)))

    def _estimate(self, weights: Mapping[str, float]) -> tuple[float, float, float]:
        """A contrast with its standard error, 0 where there is none, and degrees of freedom."""
        c = np.array([weights.get(name, 0.0) for name in self.means])
        mean = float(c @ np.array([*self.means.values()]))
        if self._seeds == 1 or self._images == 1:
            return mean, 0.0, 0.0
        variance = float((c @ self._by_image).var(ddof=1)) / self._images
        freedom = self._images - 1.0
        if self._seed > self._rest:
            scale = float(c @ c) / (self._seeds * self._images)
            images, seed, rest = variance, scale * self._seed, scale * self._rest
            variance = images + seed - rest
            freedom = variance**2 / (
                images**2 / freedom + (seed**2 + rest**2 / freedom) / self._freedom
            )
        error = variance**0.5
        return mean, error if error > SAME else 0.0, freedom

    def interval(self, name: str) -> TTest:
        """Mean of a model, in [0, 1], with its 95 % interval on the scale of the logit."""
        test = self.test({name: 1.0})
        if test.hi is None:
            return test
        lo, hi = on_logit_scale(test.mean, test.hi - test.mean)
        return test._replace(lo=lo, hi=hi)

    def pairs(self) -> list[Pair]:
        """All pairs in the order of the models, corrected for their number by Tukey's test."""
        found = []
        for first, second in combinations(self.means, 2):
            weights = {first: 1.0, second: -1.0}
            mean, error, freedom = self._estimate(weights)
            adjusted = tukey(mean / error, len(self.means), freedom) if error else None
            found.append(Pair(first, second, *self.test(weights), adjusted))
        return found

    def p_best(self) -> dict[str, float]:
        """For each model the p-value of the hypothesis that no other has a higher mean.

        By Hsu's comparison with the best: the least p-value of Dunnett's one-sided tests of the
        others against it. The models above 5 % are a confidence set of the best, which excludes
        the truly best one in at most 5 % of all studies.
        """
        found = dict.fromkeys(self.means, 1.0)
        for ahead, model in permutations(self.means, 2):
            lead, error, freedom = self._estimate({ahead: 1.0, model: -1.0})
            if error:
                p = dunnett(lead / error, len(found) - 1, freedom)
                found[model] = min(found[model], p)
        return found

    def trend(self, depths: Mapping[str, int], degree: Literal[1, 2]) -> TTest:
        """Slope or curvature of the means against depth.

        The leading coefficient of a line or a parabola, fitted by least squares. It describes all
        depths by one number, whether or not they lie on the curve.

        Args:
            depths: of each model, its number of hidden layers.
            degree: 1 for the slope, per layer; 2 for the curvature, per squared layer.

        Returns:
            The test of the coefficient.

        Raises:
            ValueError: if there are not more different depths than the degree.
        """
        x = np.array([*depths.values()], np.float64)
        if len(set(depths.values())) <= degree:
            raise ValueError(
                f"a trend of degree {degree} needs more than {degree} different depths, "
                f"got {[*depths.values()]}"
            )
        weights = np.linalg.pinv(np.vander(x, degree + 1))[0]
        return self.test(dict(zip(depths, weights.tolist(), strict=True)))


class Pooled(NamedTuple):
    """All models compared for new seeds alone, on these test images.

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
    counts = {name: len(values) for name, values in samples.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise ValueError(f"models are compared over the same seeds, but there are {listed}")
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
        adjusted = tukey(t, len(samples), freedom)
        pairs.append(Pair(a, b, difference, difference - half, difference + half, p, adjusted))
    p_equal = float(bartlett(*samples.values()).pvalue)
    p_best = {
        name: dunnett(
            max(other - mean for rival, other in means.items() if rival != name) / error,
            len(samples) - 1,
            freedom,
        )
        for name, mean in means.items()
    }
    return Pooled(pairs, deviation, p_equal, _level(spreads, count), p_best)


def _level(spreads: Sequence[float], count: int) -> float:
    """Share of 20,000 simulated studies of equal means in which Tukey's test finds a difference."""
    draws = np.random.default_rng(0).standard_normal((20_000, count, len(spreads))) * spreads
    means, variances = draws.mean(1), draws.var(1, ddof=1).mean(1)
    ranges = (means.max(1) - means.min(1)) / (variances / count) ** 0.5
    least = studentized_range.isf(LEVEL, len(spreads), len(spreads) * (count - 1))
    return float((ranges > least).mean())
