"""Softmax cross-entropy over C classes, trained on K sampled ones and evaluated on all.

The gradients are derived, not traced, and sparse for the weight: neither time nor memory of a
training step grows with C.
"""

import functools
import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar, get_args

import torch
from torch import Tensor

from isoparam.sampled_softmax.checks import (
    Reduction,
    autocast_dtype,
    check_class_weights,
    check_classes,
    check_classifier,
    check_option,
    check_positives,
    check_samples,
    check_sparse,
    raise_not_finite,
)
from isoparam.sampled_softmax.draws import Samples
from isoparam.sampled_softmax.gradients import SampledCrossEntropy
from isoparam.sampled_softmax.transforms import Weighting, log_weights

P = ParamSpec("P")
R = TypeVar("R")


def never_compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Make torch.compile call a function as it is; with fullgraph=True it reports why it cannot."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            # Not a decorator: its imports take seconds, which only compilation should cost.
            why = "the sampled softmax draws as many classes as it finds and has sparse gradients"
            eager: Callable[P, R] = torch.compiler.disable(function, reason=why)
            return eager(*args, **kwargs)
        return function(*args, **kwargs)

    return called


@never_compiled
def sampled_linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    samples: Samples,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    positives: Tensor | None = None,
    reduction: Reduction = "mean",
    ignore_index: int | None = None,
    weighting: Weighting = "importance",
    mask_hits: bool = True,
    sparse: bool = True,
    validate: bool = True,
) -> Tensor:
    """Cross-entropy of a linear classifier, with the denominator estimated from samples.

        z = x W^T + b                                                    (B, C), never formed
        loss_b = -log(e^{z_c} / (e^{z_c} + sum_{k: ids_k != c} v_k e^{z_k}))

    where c is the target of row b and v_k the weight of a sample, 1 / (expected count) by
    default, under which the denominator is unbiased. The loss itself is biased low at finite K,
    since the logarithm is concave. Logits and sums are in float32, or float64 for float64 inputs;
    under `torch.autocast` the products are in its dtype.

    Sparse gradients work with SGD (no weight decay), Adagrad and SparseAdam (neither may be
    fused), and with clipping by norm; SGD's momentum buffer is sparse too and grows to every row
    ever sampled. Adam, AdamW, weight decay and clipping by value raise, and `linear_weight` must
    be a leaf: for these use `sparse=False`, at a cost of O(C) for each step. There is no second
    derivative. torch.compile leaves the loss as it is.

    Args:
        input: Features x, shape (B, d), (d,) or (..., d): float32, float64, bfloat16 or float16.
        linear_weight: W, shape (C, d), of the same dtype, except under autocast, and device.
        target: True classes, of an integer dtype, shape (B,), () or (...).
        samples: The draw, from a `Sampler` or made by hand; B are all examples, flattened.
        linear_bias: b, shape (C,).
        weight: What an example of each class counts, shape (C,), as in `F.cross_entropy`.
        positives: Further classes of each example that are not negatives of it, of an integer
            dtype, shape (..., P). Entries outside [0, C), such as -1, fill up.
        reduction: "mean" over the targets that are not ignored, "sum" or "none".
        ignore_index: Target value whose examples count for nothing; -100 if None.
        weighting: "importance", "stated", "tensorflow" or "none", see `log_weights`.
        mask_hits: Whether samples that are the target leave the denominator. If kept, they count
            as negatives and the denominator is too large by e^{z_c} on average.
        sparse: Whether the gradients of `linear_weight` and `linear_bias` are sparse.
        validate: Whether to check values besides shapes. On a GPU this waits for the device.

    Returns:
        The loss, in float32 or float64: a scalar, or of the target's shape if `reduction` is
        "none".

    Raises:
        ValueError: If a shape, dtype, device or option does not fit, a target or id is not a
            class, or the loss is not finite.

    Example:
        >>> from isoparam.sampled_softmax.samplers import UniformSampler
        >>> x, W = torch.ones(2, 4), torch.zeros(1000, 4, requires_grad=True)
        >>> target = torch.tensor([1, 7])
        >>> samples = UniformSampler(1000, replacement=False).sample(1000, target)
        >>> loss = sampled_linear_cross_entropy(x, W, target, samples)
        >>> round(loss.exp().item(), 2)
        1000.0
        >>> loss.backward()
        >>> W.grad.layout
        torch.sparse_coo

    Reference:
        The signature follows `torch.nn.functional.linear_cross_entropy`, without label_smoothing:
        that moves the logits of all C classes, of which a step touches few. The estimate: Bengio
        and Senecal, "Quick Training of Probabilistic Neural Nets by Importance Sampling", AISTATS
        2003.
    """
    ignore_index = -100 if ignore_index is None else ignore_index
    check_option("reduction", reduction, get_args(Reduction))
    check_classifier(input, linear_weight, linear_bias, target)
    check_class_weights(weight, linear_weight)
    check_positives(positives, target)
    if sparse:
        check_sparse(linear_weight=linear_weight, linear_bias=linear_bias)
    shape = target.shape
    if input.dim() != 2:
        input = input.reshape(-1, input.shape[-1])  # noqa: A001 (B, d)
    target = target.long().flatten()  # (B,)
    check_samples(input, target, samples)
    valid = target != ignore_index  # (B,)
    if validate:
        check_classes("target", target, len(linear_weight), valid)
        check_classes("samples.ids", samples.ids, len(linear_weight))
    # On a GPU this would wait for the device.
    some_ignored = target.is_cuda or not bool(valid.all())
    if some_ignored:
        # An ignored example borrows a sampled row, so that its zero gradient touches no other row,
        # and has no features, lest what is not finite among them reach what it shares.
        target = torch.where(valid, target, samples.ids[..., 0])
        input = torch.where(valid[:, None], input, 0.0)  # noqa: A001
    masked = [target[:, None]] if mask_hits else []  # (B, 1), (B, P)
    if positives is not None:
        masked.append(positives.long().reshape(len(target), positives.shape[-1]))
    sampled_offset, target_offset = log_weights(samples, weighting)
    autocast = autocast_dtype(input, linear_weight)
    with torch.autocast(input.device.type, enabled=False):
        loss: Tensor = SampledCrossEntropy.apply(
            input,
            linear_weight,
            linear_bias,
            samples.ids,
            target,
            torch.cat(masked, 1) if masked else None,
            sampled_offset,
            target_offset,
            autocast,
            sparse,
            samples.counts is not None,
        )  # (B,)
    if validate and not math.isfinite(loss.detach().sum()) and not bool(loss.isfinite().all()):
        rows = torch.cat([samples.ids.flatten(), target])
        bias_rows = None if linear_bias is None else linear_bias[rows]
        raise_not_finite(input, linear_weight[rows], bias_rows, samples)
    if some_ignored:
        loss = torch.where(valid, loss, 0.0)
    counts = None  # of each example, (B,)
    if weight is not None:
        counts = torch.where(valid, weight.to(loss.dtype)[target], 0.0)
        loss = loss * counts
    elif some_ignored:
        counts = valid
    return loss.reshape(shape) if reduction == "none" else _reduced(loss, counts, reduction)


def _reduced(loss: Tensor, counts: Tensor | None, reduction: Reduction) -> Tensor:
    if reduction == "sum":
        return loss.sum()
    return loss.mean() if counts is None else loss.sum() / counts.sum()


def descend(weight: Tensor, rate: float) -> None:
    """Take a step of plain gradient descent on the rows of a sparse gradient, and use it up.

        w <- w - rate * gradient

    What `torch.optim.SGD` and `zero_grad` do, on a CPU in about half of their time.

    Args:
        weight: A leaf whose `grad` is sparse, such as `sampled_linear_cross_entropy` leaves it;
            None afterwards.
        rate: The learning rate.

    Raises:
        ValueError: If there is no gradient, or it is not sparse.

    Example:
        >>> from isoparam.sampled_softmax.samplers import UniformSampler
        >>> x, W = torch.ones(1, 2), torch.zeros(4, 2, requires_grad=True)
        >>> target = torch.tensor([1])
        >>> samples = UniformSampler(4, replacement=False).sample(4, target)
        >>> sampled_linear_cross_entropy(x, W, target, samples).backward()
        >>> descend(W, 1.0)
        >>> W.detach()[:, 0]
        tensor([-0.2500,  0.7500, -0.2500, -0.2500])
    """
    gradient = weight.grad
    if gradient is None or not gradient.is_sparse:
        raise ValueError(
            f"weight.grad must be sparse, got {'None' if gradient is None else gradient.layout}; "
            "call backward of a loss with sparse=True first"
        )
    weight.grad = None
    with torch.no_grad():
        if weight.is_cuda:
            weight.add_(gradient, alpha=-rate)
            return
        rows, values = gradient._indices()[0], gradient._values()  # noqa: SLF001 (with repeats)
        index = rows if values.dim() == 1 else rows[:, None].expand_as(values)
        # The fastest of PyTorch's ways to add rows; they are few, so a pass to scale them is cheap.
        weight.scatter_add_(0, index, values.mul_(-rate))
