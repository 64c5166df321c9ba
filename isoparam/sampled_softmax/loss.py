"""Softmax cross-entropy over C classes, trained on K sampled ones and evaluated on all.

The gradients are derived, not traced, and sparse for the weight: neither time nor memory of a
training step grows with C.
"""

import math
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoparam.sampled_softmax.checks import (
    Reduction,
    check_classes,
    check_classifier,
    check_option,
    check_samples,
    raise_not_finite,
)
from isoparam.sampled_softmax.gradients import SampledCrossEntropy
from isoparam.sampled_softmax.reference import Weighting, log_weights
from isoparam.sampled_softmax.samplers import Sampler, Samples, UniformSampler


def sampled_linear_cross_entropy(
    input: Tensor,  # noqa: A002
    linear_weight: Tensor,
    target: Tensor,
    samples: Samples,
    *,
    linear_bias: Tensor | None = None,
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
    since the logarithm is concave. Logits and sums are in float32, or float64 for float64 inputs.

    Sparse gradients work with SGD (no weight decay), Adagrad and SparseAdam (neither may be
    fused), and with clipping by norm; SGD's momentum buffer is sparse too and grows to every row
    ever sampled. Adam, AdamW and weight decay raise, and `linear_weight` must be a leaf: for
    these use `sparse=False`, at a cost of O(C) for each step. There is no second derivative.

    Args:
        input: Features x, shape (B, d), float32, float64, bfloat16 or float16.
        linear_weight: W, shape (C, d), of the same dtype and device.
        target: True classes, int64, shape (B,).
        samples: The draw, from a `Sampler` or made by hand.
        linear_bias: b, shape (C,).
        reduction: "mean" over the targets that are not ignored, "sum" or "none".
        ignore_index: Target value whose examples count for nothing; -100 if None.
        weighting: "importance", "stated", "tensorflow" or "none", see `log_weights`.
        mask_hits: Whether samples that are the target leave the denominator. If kept, they count
            as negatives and the denominator is too large by e^{z_c} on average.
        sparse: Whether the gradients of `linear_weight` and `linear_bias` are sparse.
        validate: Whether to check values besides shapes. On a GPU this waits for the device.

    Returns:
        The loss, in float32 or float64: a scalar, or shape (B,) if `reduction` is "none".

    Raises:
        ValueError: If a shape, dtype, device or option does not fit, a target or id is not a
            class, or the loss is not finite.

    Example:
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
        The signature follows `torch.nn.functional.linear_cross_entropy`. The estimate: Bengio and
        Senecal, "Quick Training of Probabilistic Neural Nets by Importance Sampling", AISTATS
        2003.

    """
    ignore_index = -100 if ignore_index is None else ignore_index
    check_option("reduction", reduction, get_args(Reduction))
    check_classifier(input, linear_weight, linear_bias, target)
    check_samples(input, target, samples)
    valid = target != ignore_index  # (B,)
    if validate:
        check_classes("target", target, len(linear_weight), valid)
        check_classes("samples.ids", samples.ids, len(linear_weight))
    # A GPU would have to wait for the answer.
    some_ignored = target.is_cuda or not bool(valid.all())
    if some_ignored:
        # An ignored example borrows a sampled row, so that its zero gradient touches no other row.
        target = torch.where(valid, target, samples.ids[..., 0])
    sampled_offset, target_offset = log_weights(samples, weighting)
    with torch.autocast(input.device.type, enabled=False):
        loss: Tensor = SampledCrossEntropy.apply(
            input,
            linear_weight,
            linear_bias,
            samples.ids,
            target,
            sampled_offset,
            target_offset,
            mask_hits,
            sparse,
        )  # (B,)
    if validate and not math.isfinite(loss.detach().sum()) and not bool(loss.isfinite().all()):
        rows = torch.cat([samples.ids.flatten(), target])
        bias_rows = None if linear_bias is None else linear_bias[rows]
        raise_not_finite(input, linear_weight[rows], bias_rows, samples)
    if not some_ignored:
        return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.mean()
    loss = torch.where(valid, loss, 0.0)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / valid.sum()


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


class SampledLinearCrossEntropyLoss(nn.Module):
    """A linear classifier with its loss: sampled in training, exact in evaluation.

        training      sampled_linear_cross_entropy(x, W, target, samples), O(K)
        evaluation    cross_entropy(x W^T + b, target), O(C)

    `linear.weight` is the flat (C, d) matrix, ready for a nearest-neighbour index.

    Args:
        in_features: Size d of each input.
        num_classes: Number of classes C.
        num_samples: Number of sampled classes K.
        sampler: Where they come from; uniform with replacement if None.
        per_example: Whether each example has its own samples or the batch shares them. Shared
            samples are matrix products, and much faster.
        weighting: See `log_weights`.
        mask_hits: Whether samples that are the target leave the denominator.
        sparse: Whether the gradients of weight and bias are sparse.
        bias: Whether the classifier has a bias.
        device: Device of the weight.
        dtype: Dtype of the weight.
        reduction: "mean", "sum" or "none".
        ignore_index: Target value whose examples count for nothing; -100 if None.
        validate: Whether to check values besides shapes. On a GPU this waits for the device.

    Raises:
        ValueError: If `num_samples` or an option does not fit, or the sampler has another number
            of classes.

    Example:
        >>> classifier = SampledLinearCrossEntropyLoss(8, 100_000, num_samples=64)
        >>> x, target = torch.zeros(2, 8), torch.tensor([3, 99_999])
        >>> classifier(x, target, generator=torch.Generator().manual_seed(0)).backward()
        >>> classifier.linear.weight.grad.layout
        torch.sparse_coo
        >>> round(classifier.eval()(x, target).item(), 4)  # log(100000)
        11.5129

    Reference:
        The interface follows `torch.nn.LinearCrossEntropyLoss`; `log_prob` and `predict` follow
        `torch.nn.AdaptiveLogSoftmaxWithLoss`.

    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int,
        sampler: Sampler | None = None,
        per_example: bool = False,
        weighting: Weighting = "importance",
        mask_hits: bool = True,
        sparse: bool = True,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        reduction: Reduction = "mean",
        ignore_index: int | None = None,
        validate: bool = True,
    ) -> None:
        """Check and store the options, and initialise the weight as `torch.nn.Linear` does."""
        super().__init__()
        sampler = UniformSampler(num_classes) if sampler is None else sampler
        sampler.check_num_samples(num_samples)
        if sampler.num_classes != num_classes:
            raise ValueError(
                f"the sampler must have num_classes = {num_classes}, got {sampler.num_classes}"
            )
        check_option("weighting", weighting, get_args(Weighting))
        check_option("reduction", reduction, get_args(Reduction))
        self.linear = nn.Linear(in_features, num_classes, bias=bias, device=device, dtype=dtype)
        self.num_samples = num_samples
        self.sampler = sampler
        self.per_example = per_example
        self.weighting = weighting
        self.mask_hits = mask_hits
        self.sparse = sparse
        self.reduction = reduction
        self.ignore_index = -100 if ignore_index is None else ignore_index
        self.validate = validate

    def forward(
        self,
        input: Tensor,  # noqa: A002
        target: Tensor,
        *,
        samples: Samples | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            input: Features, shape (B, d).
            target: True classes, int64, shape (B,).
            samples: A draw to use in training instead of one of the sampler's.
            generator: Source of the sampler's randomness; PyTorch's own if None.

        Returns:
            The loss: a scalar, or shape (B,) if `reduction` is "none".

        Raises:
            ValueError: As `sampled_linear_cross_entropy`.

        """
        weight, bias = self.linear.weight, self.linear.bias
        check_classifier(input, weight, bias, target)  # before the sampler reads the targets
        if not self.training:
            if self.validate:
                check_classes("target", target, len(weight), target != self.ignore_index)
            return F.cross_entropy(
                self._logits(input),
                target,
                reduction=self.reduction,
                ignore_index=self.ignore_index,
            )
        if samples is None:
            samples = self.sampler.sample(
                self.num_samples, target, per_example=self.per_example, generator=generator
            )
        return sampled_linear_cross_entropy(
            input,
            weight,
            target,
            samples,
            linear_bias=bias,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            weighting=self.weighting,
            mask_hits=self.mask_hits,
            sparse=self.sparse,
            validate=self.validate,
        )

    def log_prob(self, input: Tensor) -> Tensor:  # noqa: A002
        """Exact log-probabilities of all classes, shape (B, C), for features of shape (B, d)."""
        return self._logits(input).log_softmax(1)

    def predict(self, input: Tensor) -> Tensor:  # noqa: A002
        """Most probable class of each example, shape (B,), for features of shape (B, d)."""
        return self._logits(input).argmax(1)

    def _logits(self, input: Tensor) -> Tensor:  # noqa: A002
        weight, bias = self.linear.weight, self.linear.bias
        check_classifier(input, weight, bias)
        logits: Tensor = self.linear(input)  # (B, C)
        if self.validate and not bool(logits.amax(1).isfinite().all()):
            raise_not_finite(input, weight, bias)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def extra_repr(self) -> str:
        """Return the options, for `print`."""
        return (
            f"num_samples={self.num_samples}, sampler={type(self.sampler).__name__}, "
            f"per_example={self.per_example}, weighting={self.weighting}, "
            f"mask_hits={self.mask_hits}, sparse={self.sparse}, reduction={self.reduction}, "
            f"ignore_index={self.ignore_index}"
        )
