"""Samplers of negative classes for the sampled softmax.

Each sampler reports the probabilities it really uses. After set-up a draw of K ids costs O(K) or
O(K log C), with replacement and, unless K is a large part of C, without it.
"""

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from isoparam.sampled_softmax.draws import LawSampler, Sampler, Samples, Source, class_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

# Sums of float32 probabilities differ from 1 by less than this, whatever the number of classes.
SUM_TOLERANCE = 1e-6

# A counting sampler rebuilds its table when the counts have grown by this share.
GROWTH = 0.1

# A vector has one number for each class.
Vector: TypeAlias = "Tensor | Sequence[float] | np.ndarray[Any, Any]"


class UniformSampler(LawSampler):
    """Every class with the same probability.

        q_j = 1 / C, and without replacement pi_j = K / C

    Args:
        num_classes: Number of classes C.
        replacement: Whether a class can be drawn more than once.
        merge_repeats: Whether a shared draw holds each class once, see `Sampler`.

    Raises:
        ValueError: If `num_classes` is less than 1.

    Example:
        >>> UniformSampler(4).log_probs(torch.tensor([0, 3])).exp()
        tensor([0.2500, 0.2500], dtype=torch.float64)
    """

    def log_probs(self, ids: Tensor) -> Tensor:
        """Logarithm of 1 / C."""
        return torch.full_like(ids, -math.log(self.num_classes), dtype=torch.float64)

    def _draw(self, shape: tuple[int, ...], device: torch.device, generator: Source) -> Tensor:
        return torch.randint(self.num_classes, shape, device=device, generator=generator)

    def _log_inclusion(self, log_probs: Tensor, time: Tensor, K: int) -> Tensor:  # noqa: ARG002
        # Symmetry fixes the unconditional probability, which has less variance than the clocks'.
        return torch.full_like(log_probs, math.log(K / self.num_classes))


class LogUniformSampler(LawSampler):
    """Zipf's law in closed form, for classes sorted from frequent to rare.

        q_j = (log(j + 2) - log(j + 1)) / log(C + 1)

    Args:
        num_classes: Number of classes C.
        replacement: Whether a class can be drawn more than once.
        merge_repeats: Whether a shared draw holds each class once, see `Sampler`.

    Raises:
        ValueError: If `num_classes` is less than 1.

    Example:
        >>> LogUniformSampler(3).log_probs(torch.arange(3)).exp()
        tensor([0.5000, 0.2925, 0.2075], dtype=torch.float64)

    Reference:
        The distribution of TensorFlow's `log_uniform_candidate_sampler`.
    """

    def log_probs(self, ids: Tensor) -> Tensor:
        """Logarithm of log(1 + 1 / (j + 1)) / log(C + 1)."""
        return (1.0 / (ids.double() + 1.0)).log1p().log() - math.log(math.log1p(self.num_classes))

    def _draw(self, shape: tuple[int, ...], device: torch.device, generator: Source) -> Tensor:
        u = torch.rand(shape, dtype=torch.float64, device=device, generator=generator)
        ids = u.mul_(math.log1p(self.num_classes)).exp_().long() - 1
        # exp(log(C + 1)) may round to C + 1.
        return ids.clamp_(0, self.num_classes - 1)


class CategoricalSampler(LawSampler):
    """Any given distribution, drawn by inversion of its cumulative sums in float64.

    The table follows the device of the targets.

    Args:
        probs: The probabilities q_j, shape (C,), each positive: a class that cannot be drawn
            would be missing from the estimate of the denominator. A tensor, list or NumPy array.
        replacement: Whether a class can be drawn more than once.
        merge_repeats: Whether a shared draw holds each class once, see `Sampler`.

    Raises:
        ValueError: If `probs` is not a vector, or an entry is not positive and finite, or the
            sum differs from 1 by more than 1e-6.

    Example:
        >>> CategoricalSampler(torch.tensor([0.5, 0.25, 0.25])).log_probs(torch.tensor([1])).exp()
        tensor([0.2500], dtype=torch.float64)
    """

    def __init__(
        self, probs: Vector, *, replacement: bool = True, merge_repeats: bool = False
    ) -> None:
        """Build the table of cumulative sums, in O(C)."""
        probs = _vector("probs", probs)
        total = float(probs.sum())
        if abs(total - 1.0) > SUM_TOLERANCE:
            raise ValueError(
                f"probs must sum to 1 within {SUM_TOLERANCE}, got a sum of {total}; "
                "divide them by their sum"
            )
        super().__init__(probs.numel(), replacement=replacement, merge_repeats=merge_repeats)
        self._tabulate(probs)

    def _tabulate(self, probs: Tensor) -> None:
        cumulative = probs.cumsum(0)
        cumulative /= cumulative[-1].clone()
        # Draws follow the steps of the rounded sums, so these are reported.
        steps = cumulative.diff(prepend=cumulative.new_zeros(1))
        if not bool((steps > 0).all()):
            j = int(steps.argmin())
            raise ValueError(
                f"each of probs must be positive next to the others in float64, "
                f"got {float(probs[j])} for class {j}; raise the smallest"
            )
        self._cumulative = cumulative
        self._log_probs = steps.log()

    def log_probs(self, ids: Tensor) -> Tensor:
        """Logarithm of the tabulated probability."""
        self._follow(ids.device)
        return self._log_probs[ids]

    def _draw(self, shape: tuple[int, ...], device: torch.device, generator: Source) -> Tensor:
        self._follow(device)
        u = torch.rand(shape, dtype=torch.float64, device=device, generator=generator)
        return torch.searchsorted(self._cumulative, u, right=True)

    def _follow(self, device: torch.device) -> None:
        if self._cumulative.device != device:
            self._cumulative = self._cumulative.to(device)
            self._log_probs = self._log_probs.to(device)


class UnigramSampler(CategoricalSampler):
    """The classes' counts raised to a power, given or counted as the data come.

        q_j = (n_j + smoothing)^power / sum_i (n_i + smoothing)^power

    Args:
        counts: How often each class occurs, n_j >= 0, shape (C,): a tensor, list or NumPy array.
        power: Exponent: 1 follows the counts, 0 is uniform.
        smoothing: What is added to each count; positive if a count is 0.
        replacement: Whether a class can be drawn more than once.
        merge_repeats: Whether a shared draw holds each class once, see `Sampler`.

    Attributes:
        counts: n_j with all that `update` added, float64, shape (C,).

    Raises:
        ValueError: If `counts` is not a vector, or a smoothed count or a probability is not
            positive and finite.

    Example:
        >>> UnigramSampler([16, 1], power=0.5).log_probs(torch.tensor([0])).exp()
        tensor([0.8000], dtype=torch.float64)

    Reference:
        The power 0.75: Mikolov et al., "Distributed Representations of Words and Phrases and
        their Compositionality", NeurIPS 2013.
    """

    def __init__(
        self,
        counts: Vector,
        power: float = 0.75,
        *,
        smoothing: float = 0.0,
        replacement: bool = True,
        merge_repeats: bool = False,
    ) -> None:
        """Build the table of cumulative sums, in O(C)."""
        if not math.isfinite(power):
            raise ValueError(f"power must be finite, got {power}")
        if not 0 <= smoothing < math.inf:
            raise ValueError(f"smoothing must be at least 0 and finite, got {smoothing}")
        self.power, self.smoothing = power, smoothing
        self.counts = _vector("counts", counts, smoothing).clone()
        self._added = 0
        super().__init__(self._law(), replacement=replacement, merge_repeats=merge_repeats)

    def update(self, ids: Tensor) -> None:
        """Count classes, such as a batch's targets, and let the law follow.

        Its table is rebuilt, in O(C), whenever the counts have grown by a tenth. Draws and reports
        use the law of the last table.

        Args:
            ids: Of any shape and integer dtype. Those outside [0, C) do not count.

        Raises:
            ValueError: If `ids` is of another dtype.

        Example:
            >>> sampler = UnigramSampler([0, 0], power=1.0, smoothing=1.0)
            >>> sampler.update(torch.tensor([1, 1]))
            >>> sampler.log_probs(torch.tensor([0, 1])).exp()
            tensor([0.2500, 0.7500], dtype=torch.float64)
        """
        ids = class_ids("ids", ids).flatten()
        ids = ids[(ids >= 0) & (ids < self.num_classes)]
        self.counts = self.counts.to(ids.device)
        self.counts.index_add_(0, ids, torch.ones_like(ids, dtype=torch.float64))
        self._added += ids.numel()
        if self._added > GROWTH * self._total:
            self._added = 0
            self._tabulate(self._law())

    def _law(self) -> Tensor:
        smoothed = self.counts + self.smoothing
        self._total = float(smoothed.sum())
        return (smoothed.log() * self.power).softmax(0)

    def _arguments(self) -> list[str]:
        shape = [f"power={self.power}", f"smoothing={self.smoothing}"]
        return super()._arguments()[:1] + shape + super()._arguments()[1:]


class InBatchSampler(Sampler):
    """The batch's own classes: the negatives of an example are the other examples' targets.

        n_j = (B - 1) q_j, where q_j is how likely j is as a target

    An example's own target is a hit, which the loss masks, so B - 1 independent draws are left.
    Targets outside [0, C), such as an ignore_index, are left out.

    Args:
        probabilities: q_j, shape (C,), each positive; or a sampler with this law, such as
            `UnigramSampler(counts, power=1.0)`, whose `update` follows the data.
        merge_repeats: Whether the draw holds each class once, see `Sampler`.

    Raises:
        ValueError: As `CategoricalSampler`.

    Example:
        >>> sampler = InBatchSampler([0.5, 0.25, 0.25])
        >>> draw = sampler.sample(None, torch.tensor([2, 0, 0]))
        >>> draw.ids, draw.log_expected_counts.exp()
        (tensor([2, 0, 0]), tensor([0.5000, 1.0000, 1.0000], dtype=torch.float64))

    Reference:
        Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
        Recommendations", RecSys 2019.
    """

    def __init__(
        self, probabilities: "LawSampler | Vector", *, merge_repeats: bool = False
    ) -> None:
        """Check and store the law."""
        self.law = (
            probabilities
            if isinstance(probabilities, LawSampler)
            else CategoricalSampler(probabilities)
        )
        super().__init__(self.law.num_classes, merge_repeats=merge_repeats)

    def check_num_samples(self, num_samples: int | None) -> None:
        """Raise a ValueError if a number is given, since the batch decides it."""
        if num_samples is not None:
            raise ValueError(
                f"num_samples must be None, since the batch is the draw, got {num_samples}"
            )

    def _make(self, K: int | None, target: Tensor, per_example: bool, generator: Source) -> Samples:
        ids, draws = self.draw(K, target, per_example, generator)
        if not len(ids):
            ids = ids.new_zeros(1)  # no target is left that could read it
        return self._report(ids, target, self.log_probs, math.log(max(draws, 1)))

    def log_probs(self, ids: Tensor) -> Tensor:
        """Logarithm of q_j, in float64, shaped as `ids`."""
        return self.law.log_probs(ids)

    def draw(
        self, _K: int | None, target: Tensor, per_example: bool, _: Source
    ) -> tuple[Tensor, int]:
        """The targets that are classes, and how many of them are not the example's own."""
        if per_example:
            raise ValueError("the batch is one draw that all share: per_example must be False")
        ids = target[(target >= 0) & (target < self.num_classes)]
        return ids, max(len(ids) - 1, 0)

    def _arguments(self) -> list[str]:
        return [repr(self.law), *super()._arguments()]


class MixedSampler(Sampler):
    """What two samplers draw, put together: K ids of each, or the batch and K others.

        n_j = n_j of the first + n_j of the second, whichever of them drew j

    The batch's own classes leave out what is rarely a target; with uniform ones beside them, the
    loss sees every class.

    Args:
        first: A sampler with replacement.
        second: Another one, of as many classes.
        merge_repeats: Whether a shared draw holds each class once, see `Sampler`.

    Raises:
        ValueError: If the two differ in their number of classes, or one draws without
            replacement.

    Example:
        >>> mixed = MixedSampler(InBatchSampler([0.5, 0.25, 0.25]), UniformSampler(3))
        >>> draw = mixed.sample(4, torch.tensor([2, 0, 0]))
        >>> draw.ids[:3], draw.log_expected_counts[:3].exp()
        (tensor([2, 0, 0]), tensor([1.8333, 2.3333, 2.3333], dtype=torch.float64))

    Reference:
        In-batch and uniform: Yang et al., "Mixed Negative Sampling for Learning Two-tower Neural
        Networks in Recommendations", WWW 2020. One weight for both sources: the balance heuristic,
        Veach and Guibas, "Optimally Combining Sampling Techniques for Monte Carlo Rendering",
        SIGGRAPH 1995.
    """

    def __init__(
        self,
        first: LawSampler | InBatchSampler,
        second: LawSampler | InBatchSampler,
        *,
        merge_repeats: bool = False,
    ) -> None:
        """Check and store the two."""
        if first.num_classes != second.num_classes:
            raise ValueError(
                "the samplers must have as many classes, got "
                f"{first.num_classes} and {second.num_classes}"
            )
        if not all(getattr(sampler, "replacement", True) for sampler in (first, second)):
            raise ValueError("a mixture draws with replacement: pass replacement=True to both")
        super().__init__(first.num_classes, merge_repeats=merge_repeats)
        self.samplers = first, second

    def check_num_samples(self, num_samples: int | None) -> None:
        """Raise a ValueError if one of the two that draw cannot draw so many."""
        for sampler in self.samplers:
            if isinstance(sampler, LawSampler):
                sampler.check_num_samples(num_samples)

    def _make(self, K: int | None, target: Tensor, per_example: bool, generator: Source) -> Samples:
        draws = [sampler.draw(K, target, per_example, generator) for sampler in self.samplers]
        drawn, numbers = zip(*draws, strict=True)
        first, second = (math.log(number) if number else -math.inf for number in numbers)
        log_draws = math.log(max(sum(numbers), 1))

        def log_probs(ids: Tensor) -> Tensor:
            by_first, by_second = (sampler.log_probs(ids) for sampler in self.samplers)
            return torch.logaddexp(by_first + first, by_second + second) - log_draws

        return self._report(torch.cat(drawn, -1), target, log_probs, log_draws)

    def _arguments(self) -> list[str]:
        return [*map(repr, self.samplers), *super()._arguments()]


def _vector(name: str, values: Vector, smoothing: float = 0.0) -> Tensor:
    """`values` in float64, shape (C,), positive once they are smoothed."""
    values = values.detach() if isinstance(values, Tensor) else torch.tensor(values)
    if values.dim() != 1 or values.numel() == 0:
        raise ValueError(f"{name} must have shape (C,) with C >= 1, got {tuple(values.shape)}")
    if values.is_complex():
        raise ValueError(f"{name} must be real, got {values.dtype}; take the absolute values")
    values = values.double()
    bad = ~((values >= 0) & (values + smoothing > 0) & values.isfinite())
    if bool(bad.any()):
        j = int(bad.int().argmax())
        raise ValueError(
            f"each of {name} must be positive and finite, got {float(values[j])} for class {j}; "
            "add a small constant to all of them, for counts by smoothing="
        )
    return values
