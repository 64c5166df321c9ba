"""What a draw of classes is, and how one is made from a law, with replacement and without."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Integral
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

# Which backward pass runs, -1 if none. It is private to PyTorch; without it nothing is rejected.
_backward_pass = getattr(torch._C, "_current_graph_task_id", lambda: -1)  # noqa: SLF001

# Of randomness; None for PyTorch's own.
Source: TypeAlias = torch.Generator | None


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
        counts: How many draws each id stands for, int64, shape (K,); None where it is one.

    Example:
        >>> from isoparam.sampled_softmax.samplers import UniformSampler
        >>> samples = UniformSampler(8).sample(4, torch.tensor([3, 7]))
        >>> samples.ids.shape, samples.log_expected_counts.exp()
        (torch.Size([4]), tensor([0.5000, 0.5000, 0.5000, 0.5000], dtype=torch.float64))
    """

    ids: Tensor
    log_probs: Tensor
    log_expected_counts: Tensor
    target_log_expected_counts: Tensor
    counts: Tensor | None = None


class Sampler(ABC):
    """Where the sampled classes come from; `LawSampler` is the base of those with a law.

    Args:
        num_classes: Number of classes C.
        merge_repeats: Whether a draw that the batch shares holds each class once, beside how
            often it was drawn. The estimate is the same, up to rounding. Where a law is skewed
            the loss is then much cheaper; on a GPU it waits for the number of classes left.

    Raises:
        ValueError: If `num_classes` is less than 1.
    """

    def __init__(self, num_classes: int, *, merge_repeats: bool = False) -> None:
        """Check and store the arguments."""
        check_count("num_classes", num_classes)
        self.num_classes = num_classes
        self.merge_repeats = merge_repeats

    def __repr__(self) -> str:
        """What it was made with."""
        return f"{type(self).__name__}({', '.join(self._arguments())})"

    def _arguments(self) -> list[str]:
        return [f"merge_repeats={self.merge_repeats}"]

    @abstractmethod
    def check_num_samples(self, num_samples: int | None) -> None:
        """Raise a ValueError if so many samples cannot be drawn."""

    def sample(
        self,
        num_samples: int | None,
        target: Tensor,
        *,
        per_example: bool = False,
        generator: torch.Generator | None = None,
    ) -> Samples:
        """Draw K classes for the batch, or K for each example, on the device of `target`.

        Args:
            num_samples: Number of classes K to draw.
            target: The B true classes, of any shape and integer dtype, for the batch size, the
                device and their expected counts. Entries outside [0, C), such as an
                ignore_index, get counts that the loss does not read.
            per_example: Whether each example has its own draw (B, K) or all share one (K,).
            generator: Source of randomness on the device of `target`; PyTorch's own if None.

        Returns:
            The drawn ids and what the corrections need.

        Raises:
            ValueError: If K is less than 1, or exceeds C without replacement, or `target` is not
                of an integer dtype, or the generator is on another device.
            RuntimeError: If a backward pass runs and there is a generator.

        Example:
            >>> from isoparam.sampled_softmax.samplers import UniformSampler
            >>> sampler = UniformSampler(10)
            >>> sampler.sample(5, torch.tensor([1, 2, 3]), per_example=True).ids.shape
            torch.Size([3, 5])
        """
        self.check_num_samples(num_samples)
        target = class_ids("target", target).flatten()  # (B,)
        return self._make(num_samples, target, per_example, generator)

    @abstractmethod
    def _make(self, K: int | None, target: Tensor, per_example: bool, generator: Source) -> Samples:
        """Draw for int64 targets (B,)."""

    def _report(
        self, ids: Tensor, target: Tensor, log_probs: Callable[[Tensor], Tensor], log_draws: float
    ) -> Samples:
        """Report a draw with replacement, ids (K,) or (B, K), by log q_j and log K."""
        counts = None
        if self.merge_repeats and ids.dim() == 1:
            ids, counts = ids.unique(return_counts=True)
        log_q, log_q_c = log_probs(ids), log_probs(target.clamp(0, self.num_classes - 1))
        return Samples(ids, log_q, log_q + log_draws, log_q_c + log_draws, counts)


class LawSampler(Sampler):
    """Draws classes from a distribution q over C classes, with or without replacement.

    Without replacement, class j gets a clock E_j ~ Exponential(q_j). The K first to ring are the
    draw, and the time t of the next one gives each of them the inclusion probability

        pi_j = 1 - exp(-q_j t),

    under which sum over drawn j of f_j / pi_j has the expectation sum over all j of f_j.

    Args:
        num_classes: Number of classes C.
        replacement: Whether a class can be drawn more than once.
        merge_repeats: See `Sampler`.

    Raises:
        ValueError: If `num_classes` is less than 1.

    Example:
        >>> from isoparam.sampled_softmax.samplers import LogUniformSampler
        >>> sampler = LogUniformSampler(1_000_000, replacement=False)
        >>> draw = sampler.sample(64, torch.tensor([0]), generator=torch.Generator())
        >>> draw.ids.unique().numel()
        64

    Reference:
        Bottom-k sketches with rank conditioning: Cohen and Kaplan, "Summarizing data using
        bottom-k sketches", PODC 2007.
    """

    def __init__(
        self, num_classes: int, *, replacement: bool = True, merge_repeats: bool = False
    ) -> None:
        """Check and store the arguments."""
        super().__init__(num_classes, merge_repeats=merge_repeats)
        self.replacement = replacement

    def _arguments(self) -> list[str]:
        law = [f"num_classes={self.num_classes}", f"replacement={self.replacement}"]
        return law + super()._arguments()

    @abstractmethod
    def log_probs(self, ids: Tensor) -> Tensor:
        """Logarithm of the probability q_j of one draw, in float64, shaped as `ids`."""

    @abstractmethod
    def _draw(self, shape: tuple[int, ...], device: torch.device, generator: Source) -> Tensor:
        """Independent ids from q."""

    def _make(self, K: int | None, target: Tensor, per_example: bool, generator: Source) -> Samples:
        if self.replacement:
            ids, K = self.draw(K, target, per_example, generator)
            return self._report(ids, target, self.log_probs, math.log(K))
        check_generator(generator, target.device)
        K, rows = K or 0, len(target) if per_example else 1
        target_log_probs = self.log_probs(target.clamp(0, self.num_classes - 1))  # (B,)
        ids, time = self._draw_distinct(rows, K, target.device, generator)  # (rows, K), (rows, 1)
        log_probs = self.log_probs(ids)
        counts = self._log_inclusion(log_probs, time, K)
        target_counts = self._log_inclusion(target_log_probs, time[:, 0], K)
        if per_example:
            return Samples(ids, log_probs, counts, target_counts)
        once = torch.ones_like(ids[0]) if self.merge_repeats else None
        return Samples(ids[0], log_probs[0], counts[0], target_counts, once)

    def check_num_samples(self, num_samples: int | None) -> None:
        """Raise a ValueError if so many samples cannot be drawn."""
        check_count("num_samples", num_samples)
        if not self.replacement and (num_samples or 0) > self.num_classes:
            raise ValueError(
                f"without replacement num_samples must be at most num_classes = "
                f"{self.num_classes}, got {num_samples}; draw fewer or use replacement=True"
            )

    def draw(
        self, K: int | None, target: Tensor, per_example: bool, generator: Source
    ) -> tuple[Tensor, int]:
        """Independent ids, shape (K,) or (B, K), and K."""
        check_generator(generator, target.device)
        K = K or 0
        shape = (len(target), K) if per_example else (K,)
        return self._draw(shape, target.device, generator), K

    def _log_inclusion(self, log_probs: Tensor, time: Tensor, K: int) -> Tensor:  # noqa: ARG002
        return (-torch.expm1(-log_probs.exp() * time)).log()

    def _draw_distinct(
        self, rows: int, K: int, device: torch.device, generator: Source
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


def class_ids(name: str, ids: Tensor) -> Tensor:
    """Return ids as int64, or raise a ValueError if their dtype holds no integers."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{name} must be of an integer dtype, got {ids.dtype}")
    return ids.long()


def check_count(name: str, value: int | None) -> None:
    """Raise a ValueError if a number is not a whole one from 1 on."""
    whole = isinstance(value, Integral)
    if value is None or not whole or value < 1:
        note = "" if whole else ", which is not an integer"
        raise ValueError(f"{name} must be at least 1, got {value!r}{note}")


def check_generator(generator: torch.Generator | None, device: torch.device) -> None:
    """Raise an error if a draw by this generator on this device would fail or go wrong."""
    if generator is None:
        return
    if generator.device.type != device.type:
        raise ValueError(
            f"generator must be on the device of target, {device}, got {generator.device}; "
            f"make it with torch.Generator({device.type!r})"
        )
    if _backward_pass() != -1:
        raise RuntimeError(
            "a backward pass repeats this draw, as torch.utils.checkpoint has it, and the "
            "generator would draw other classes than before; draw outside of what is "
            "checkpointed and pass samples=, or use PyTorch's own generator"
        )
