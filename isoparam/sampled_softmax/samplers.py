"""Samplers of negative classes for the sampled softmax.

Each sampler reports the probabilities it really uses. After set-up a draw of K ids costs O(K) or
O(K log C), with replacement and, unless K is a large part of C, without it.
"""

import math
from abc import ABC, abstractmethod
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

# Sums of float32 probabilities differ from 1 by less than this, whatever the number of classes.
SUM_TOLERANCE = 1e-6


class Samples(NamedTuple):
    """Drawn classes, shared by the batch (K,) or one row for each example (B, K).

    Any tensors of these shapes will do: a `Samples` made by hand injects a fixed draw into the
    loss. Logarithms are natural.

    Attributes:
        ids: The drawn classes, int64, repeats allowed. Shape (K,) or (B, K).
        log_probs: log q_j of each id, what the stated weighting reads. Shape (K,) or (B, K).
        log_expected_counts: Logarithm of the expected number of times that the id occurs in the
            draw: K q_j with replacement, the inclusion probability without. Shape (K,) or (B, K).
        target_log_expected_counts: The same for the targets, what the TensorFlow weighting
            reads. Shape (B,).

    Example:
        >>> samples = UniformSampler(8).sample(4, torch.tensor([3, 7]))
        >>> samples.ids.shape, samples.log_expected_counts.exp()
        (torch.Size([4]), tensor([0.5000, 0.5000, 0.5000, 0.5000], dtype=torch.float64))

    """

    ids: Tensor
    log_probs: Tensor
    log_expected_counts: Tensor
    target_log_expected_counts: Tensor


class Sampler(ABC):
    """Draws classes from a distribution q over C classes, with or without replacement.

    Without replacement, class j gets a clock E_j ~ Exponential(q_j). The K first to ring are the
    draw, and the time t of the next one gives each of them the inclusion probability

        pi_j = 1 - exp(-q_j t),

    under which sum over drawn j of f_j / pi_j has the expectation sum over all j of f_j.

    Args:
        num_classes: Number of classes C.
        replacement: Whether a class can be drawn more than once.

    Raises:
        ValueError: If `num_classes` is less than 1.

    Example:
        >>> sampler = LogUniformSampler(1_000_000, replacement=False)
        >>> draw = sampler.sample(64, torch.tensor([0]), generator=torch.Generator())
        >>> draw.ids.unique().numel()
        64

    Reference:
        Bottom-k sketches with rank conditioning: Cohen and Kaplan, "Summarizing data using
        bottom-k sketches", PODC 2007.

    """

    def __init__(self, num_classes: int, *, replacement: bool = True) -> None:
        """Check and store the arguments."""
        _check_count("num_classes", num_classes)
        self.num_classes = num_classes
        self.replacement = replacement

    @abstractmethod
    def log_probs(self, ids: Tensor) -> Tensor:
        """Logarithm of the probability q_j of one draw, in float64, shaped as `ids`."""

    @abstractmethod
    def _draw(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        """Independent ids from q."""

    def sample(
        self,
        num_samples: int,
        target: Tensor,
        *,
        per_example: bool = False,
        generator: torch.Generator | None = None,
    ) -> Samples:
        """Draw K classes for the batch, or K for each example, on the device of `target`.

        Args:
            num_samples: Number of classes K to draw.
            target: The true classes (B,), int64, for the batch size, the device and their
                expected counts. Entries outside [0, C), such as an ignore_index, get counts that
                the loss does not read.
            per_example: Whether each example has its own draw (B, K) or all share one (K,).
            generator: Source of randomness on the device of `target`; PyTorch's own if None.

        Returns:
            The drawn ids and what the corrections need.

        Raises:
            ValueError: If K is less than 1, or exceeds C without replacement, or `target` is not
                a vector of int64, or the generator is on another device.

        Example:
            >>> sampler = UniformSampler(10)
            >>> sampler.sample(5, torch.tensor([1, 2, 3]), per_example=True).ids.shape
            torch.Size([3, 5])

        """
        self.check_num_samples(num_samples)
        if target.dim() != 1 or target.dtype != torch.int64:
            raise ValueError(
                f"target must be int64 of shape (B,), got {target.dtype} of shape "
                f"{tuple(target.shape)}; convert it with .long() and .flatten()"
            )
        K, C, device = num_samples, self.num_classes, target.device
        if generator is not None and generator.device.type != device.type:
            raise ValueError(
                f"generator must be on the device of target, {device}, got {generator.device}; "
                f"make it with torch.Generator({device.type!r})"
            )
        rows = target.shape[0] if per_example else 1
        target_log_probs = self.log_probs(target.clamp(0, C - 1))  # (B,)
        if self.replacement:
            ids = self._draw((rows, K) if per_example else (K,), device, generator)
            log_probs = self.log_probs(ids)  # (B, K) or (K,)
            counts = log_probs + math.log(K)
            target_counts = target_log_probs + math.log(K)
            return Samples(ids, log_probs, counts, target_counts)
        ids, time = self._draw_distinct(rows, K, device, generator)  # (rows, K), (rows, 1)
        log_probs = self.log_probs(ids)
        counts = self._log_inclusion(log_probs, time, K)
        target_counts = self._log_inclusion(target_log_probs, time[:, 0], K)
        if not per_example:
            ids, log_probs, counts = ids[0], log_probs[0], counts[0]  # (K,)
        return Samples(ids, log_probs, counts, target_counts)

    def check_num_samples(self, num_samples: int) -> None:
        """Raise a ValueError if so many samples can not be drawn."""
        _check_count("num_samples", num_samples)
        if not self.replacement and num_samples > self.num_classes:
            raise ValueError(
                f"without replacement num_samples must be at most num_classes = "
                f"{self.num_classes}, got {num_samples}; draw fewer or use replacement=True"
            )

    def _log_inclusion(self, log_probs: Tensor, time: Tensor, K: int) -> Tensor:  # noqa: ARG002
        return (-torch.expm1(-log_probs.exp() * time)).log()

    def _draw_distinct(
        self, rows: int, K: int, device: torch.device, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Find the K first clocks (rows, K) and the time of the next (rows, 1), inf for K = C.

        The clocks are the first arrivals of a Poisson process of rate 1 whose points carry
        independent ids from q, so most classes need no clock.
        """
        C = self.num_classes
        needed = min(K + 1, C)
        ids = torch.empty(rows, 0, dtype=torch.int64, device=device)
        times = torch.zeros(rows, 1, dtype=torch.float64, device=device)
        distinct = 0
        while distinct < needed and ids.shape[1] + 2 * needed <= C:
            chunk = max(ids.shape[1], 2 * needed)
            ids = torch.cat([ids, self._draw((rows, chunk), device, generator)], 1)  # (rows, n)
            waits = torch.empty(rows, chunk, dtype=torch.float64, device=device)
            waits.exponential_(generator=generator)
            times = torch.cat([times, times[:, -1:] + waits.cumsum(1)], 1)  # (rows, 1 + n)
            sorted_ids, order = ids.sort(stable=True, dim=1)
            repeated = sorted_ids[:, 1:] == sorted_ids[:, :-1]
            distinct = ids.shape[1] - (int(repeated.sum(1).max()) if rows else 0)
        if distinct >= needed:
            arrivals = times[:, 1:].gather(1, order)
            arrivals[:, 1:].masked_fill_(repeated, math.inf)
        else:
            # The process has no memory: every clock that has not rung starts again at its end.
            sorted_ids = torch.arange(C, device=device).expand(rows, C)
            arrivals = torch.empty(rows, C, dtype=torch.float64, device=device)
            arrivals.exponential_(generator=generator)
            arrivals = arrivals / self.log_probs(sorted_ids[:1]).exp() + times[:, -1:]
            arrivals.scatter_reduce_(1, ids, times[:, 1:], "amin")
        time, index = arrivals.topk(needed, 1, largest=False)  # (rows, needed)
        drawn = sorted_ids.gather(1, index[:, :K])
        return drawn, time[:, K:] if needed > K else torch.full_like(time[:, :1], math.inf)


class UniformSampler(Sampler):
    """Every class with the same probability.

        q_j = 1 / C, and without replacement pi_j = K / C

    Args:
        num_classes: Number of classes C.
        replacement: Whether a class can be drawn more than once.

    Raises:
        ValueError: If `num_classes` is less than 1.

    Example:
        >>> UniformSampler(4).log_probs(torch.tensor([0, 3])).exp()
        tensor([0.2500, 0.2500], dtype=torch.float64)

    """

    def log_probs(self, ids: Tensor) -> Tensor:
        """Logarithm of 1 / C."""
        return torch.full_like(ids, -math.log(self.num_classes), dtype=torch.float64)

    def _draw(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        return torch.randint(self.num_classes, shape, device=device, generator=generator)

    def _log_inclusion(self, log_probs: Tensor, time: Tensor, K: int) -> Tensor:  # noqa: ARG002
        # Symmetry fixes the unconditional probability, which has less variance than the clocks'.
        return torch.full_like(log_probs, math.log(K / self.num_classes))


class LogUniformSampler(Sampler):
    """Zipf's law in closed form, for classes sorted from frequent to rare.

        q_j = (log(j + 2) - log(j + 1)) / log(C + 1)

    Args:
        num_classes: Number of classes C.
        replacement: Whether a class can be drawn more than once.

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

    def _draw(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        u = torch.rand(shape, dtype=torch.float64, device=device, generator=generator)
        ids = u.mul_(math.log1p(self.num_classes)).exp_().long() - 1
        # exp(log(C + 1)) may round to C + 1.
        return ids.clamp_(0, self.num_classes - 1)


class CategoricalSampler(Sampler):
    """Any given distribution, drawn by inversion of its cumulative sums in float64.

    The table follows the device of the targets.

    Args:
        probs: The probabilities q_j, shape (C,), each positive: a class that can not be drawn
            would be missing from the estimate of the denominator.
        replacement: Whether a class can be drawn more than once.

    Raises:
        ValueError: If `probs` is not a vector, or an entry is not positive and finite, or the
            sum differs from 1 by more than 1e-6.

    Example:
        >>> CategoricalSampler(torch.tensor([0.5, 0.25, 0.25])).log_probs(torch.tensor([1])).exp()
        tensor([0.2500], dtype=torch.float64)

    """

    def __init__(self, probs: Tensor, *, replacement: bool = True) -> None:
        """Build the table of cumulative sums, in O(C)."""
        probs = _positive_vector("probs", probs)
        total = float(probs.sum())
        if abs(total - 1.0) > SUM_TOLERANCE:
            raise ValueError(
                f"probs must sum to 1 within {SUM_TOLERANCE}, got a sum of {total}; "
                "divide them by their sum"
            )
        super().__init__(probs.numel(), replacement=replacement)
        cumulative = probs.cumsum(0)
        cumulative /= cumulative[-1].clone()
        # What is drawn are the steps of the rounded sums, so these are what is reported.
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

    def _draw(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Tensor:
        self._follow(device)
        u = torch.rand(shape, dtype=torch.float64, device=device, generator=generator)
        return torch.searchsorted(self._cumulative, u, right=True)

    def _follow(self, device: torch.device) -> None:
        if self._cumulative.device != device:
            self._cumulative = self._cumulative.to(device)
            self._log_probs = self._log_probs.to(device)


class UnigramSampler(CategoricalSampler):
    """The classes' counts raised to a power.

        q_j = n_j^power / sum_i n_i^power

    Args:
        counts: How often each class occurs, n_j > 0, shape (C,), of any real dtype.
        power: Exponent: 1 follows the counts, 0 is uniform.
        replacement: Whether a class can be drawn more than once.

    Raises:
        ValueError: If `counts` is not a vector, or a count or a probability is not positive and
            finite.

    Example:
        >>> UnigramSampler(torch.tensor([16, 1]), power=0.5).log_probs(torch.tensor([0])).exp()
        tensor([0.8000], dtype=torch.float64)

    Reference:
        The power 0.75: Mikolov et al., "Distributed Representations of Words and Phrases and
        their Compositionality", NeurIPS 2013.

    """

    def __init__(self, counts: Tensor, power: float = 0.75, *, replacement: bool = True) -> None:
        """Build the table of cumulative sums, in O(C)."""
        if not math.isfinite(power):
            raise ValueError(f"power must be finite, got {power}")
        log_mass = _positive_vector("counts", counts).log() * power
        super().__init__(log_mass.softmax(0), replacement=replacement)


def _check_count(name: str, value: int) -> None:
    whole = isinstance(value, Integral)
    if not whole or value < 1:
        note = "" if whole else ", which is not an integer"
        raise ValueError(f"{name} must be at least 1, got {value!r}{note}")


def _positive_vector(name: str, values: Tensor) -> Tensor:
    """`values` in float64, shape (C,)."""
    if values.dim() != 1 or values.numel() == 0:
        raise ValueError(f"{name} must have shape (C,) with C >= 1, got {tuple(values.shape)}")
    if values.is_complex():
        raise ValueError(f"{name} must be real, got {values.dtype}; take the absolute values")
    values = values.detach().double()
    bad = ~((values > 0) & values.isfinite())
    if bool(bad.any()):
        j = int(bad.int().argmax())
        raise ValueError(
            f"each of {name} must be positive and finite, got {float(values[j])} for class {j}; "
            "add a small constant to all of them (smoothing)"
        )
    return values
