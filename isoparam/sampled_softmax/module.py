"""The classifier and its loss as a module: sampled in training, exact in evaluation."""

import math
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoparam.sampled_softmax.checks import (
    Reduction,
    check_class_weights,
    check_classes,
    check_classifier,
    check_option,
    check_positives,
    raise_not_finite,
)
from isoparam.sampled_softmax.draws import Sampler, Samples
from isoparam.sampled_softmax.loss import never_compiled, sampled_linear_cross_entropy
from isoparam.sampled_softmax.samplers import UniformSampler
from isoparam.sampled_softmax.transforms import Weighting


class SampledLinearCrossEntropyLoss(nn.Module):
    """A linear classifier with its loss: sampled in training, exact in evaluation.

        training      sampled_linear_cross_entropy(x, W, target, samples), O(K)
        evaluation    cross_entropy(x W^T + b, target), O(C)

    `linear.weight` is the flat (C, d) matrix, ready for a nearest-neighbour index.

    Args:
        in_features: Size d of each input.
        num_classes: Number of classes C.
        num_samples: Number of sampled classes K; None for `InBatchSampler`.
        sampler: The source of the samples; uniform with replacement if None.
        per_example: Whether each example has its own samples or the batch shares them. Shared
            samples are matrix products, and much faster.
        weighting: See `log_weights`.
        mask_hits: Whether samples that are the target leave the denominator.
        sparse: Whether the gradients of weight and bias are sparse. `DistributedDataParallel`
            takes both.
        bias: Whether the classifier has a bias.
        device: Device of the weight.
        dtype: Dtype of the weight.
        reduction: "mean", "sum" or "none".
        weight: What an example of each class counts, shape (C,), kept as a buffer.
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

    weight: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_samples: int | None,
        sampler: Sampler | None = None,
        per_example: bool = False,
        weighting: Weighting = "importance",
        mask_hits: bool = True,
        sparse: bool = True,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        reduction: Reduction = "mean",
        weight: Tensor | None = None,
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
        self.linear = _Rows(
            in_features, num_classes, bias=bias, sparse=sparse, device=device, dtype=dtype
        )
        check_class_weights(weight, self.linear.weight)
        self.register_buffer("weight", weight)
        self.num_samples = num_samples
        self.sampler = sampler
        self.per_example = per_example
        self.weighting = weighting
        self.mask_hits = mask_hits
        self.reduction = reduction
        self.ignore_index = -100 if ignore_index is None else ignore_index
        self.validate = validate

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        samples: Samples | None = None,
        positives: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the loss of a batch.

        Args:
            input: Features, shape (B, d), (d,) or (..., d).
            target: True classes, of an integer dtype, shape (B,), () or (...).
            samples: A draw to use in training instead of one of the sampler's.
            positives: Further classes of each example that are not negatives of it, in training
                and in evaluation, shape (..., P); entries outside [0, C) fill up.
            generator: Source of the sampler's randomness; PyTorch's own if None.

        Returns:
            The loss: a scalar, or of the target's shape if `reduction` is "none".

        Raises:
            ValueError: As `sampled_linear_cross_entropy`.
            RuntimeError: If `torch.utils.checkpoint` repeats a draw of the generator.
        """
        # Before the sampler reads the targets.
        check_classifier(input, self.linear.weight, self.linear.bias, target)
        check_positives(positives, target)
        if self.training:
            return self._sampled(input, target, samples, positives, generator)
        valid = target != self.ignore_index
        if self._validates():
            check_classes("target", target, self.linear.num_embeddings, valid)
        # What is ignored counts for nothing, even if it is not finite.
        logits = self._logits(input.masked_fill(~valid[..., None], 0.0))
        target = target.long()
        if positives is not None:
            logits = logits.masked_fill(self._others(target, positives), -math.inf)
        loss = F.cross_entropy(
            logits.flatten(0, -2) if logits.dim() > 1 else logits,
            target.flatten() if logits.dim() > 1 else target,
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
        )
        return loss.reshape(target.shape) if self.reduction == "none" else loss

    @never_compiled
    def _sampled(
        self,
        input: Tensor,
        target: Tensor,
        samples: Samples | None,
        positives: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        if samples is None:
            samples = self.sampler.sample(
                self.num_samples, target, per_example=self.per_example, generator=generator
            )
        return sampled_linear_cross_entropy(
            input,
            self.linear.weight,
            target,
            samples,
            linear_bias=self.linear.bias,
            weight=self.weight,
            positives=positives,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            weighting=self.weighting,
            mask_hits=self.mask_hits,
            sparse=self.linear.sparse,
            validate=self.validate,
        )

    def log_prob(self, input: Tensor) -> Tensor:
        """Exact log-probabilities of all classes, shape (..., C), of features (..., d)."""
        return self._logits(input).log_softmax(-1)

    def predict(self, input: Tensor) -> Tensor:
        """Most probable class of each example, shape (...), of features (..., d)."""
        return self._logits(input).argmax(-1)

    def _logits(self, input: Tensor) -> Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        check_classifier(input, weight, bias)
        logits: Tensor = self.linear(input)  # (..., C)
        if self._validates() and not bool(logits.amax(-1).isfinite().all()):
            raise_not_finite(input, weight, bias)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _others(self, target: Tensor, positives: Tensor) -> Tensor:
        """Where a class is a positive other than the target, shape (..., C)."""
        C = self.linear.num_embeddings
        inside = (positives >= 0) & (positives < C) & (positives != target[..., None])
        others = torch.zeros(*target.shape, C + 1, dtype=torch.bool, device=target.device)
        return others.scatter(-1, torch.where(inside, positives.long(), C), value=True)[..., :C]

    def _validates(self) -> bool:
        # A value would decide what is compiled or exported.
        return self.validate and not torch.compiler.is_compiling()

    def extra_repr(self) -> str:
        """Return the options, for `print`."""
        return (
            f"num_samples={self.num_samples}, sampler={self.sampler}, "
            f"per_example={self.per_example}, weighting={self.weighting}, "
            f"mask_hits={self.mask_hits}, reduction={self.reduction}, "
            f"ignore_index={self.ignore_index}"
        )


class _Rows(nn.Embedding):
    """A linear layer whose weight has a row for each class.

    An embedding, since `DistributedDataParallel` expects sparse gradients of nothing else.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool,
        sparse: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        like = nn.Linear(in_features, out_features, bias=bias, device=device, dtype=dtype)
        super().__init__(out_features, in_features, sparse=sparse, _weight=like.weight.data)
        self.register_parameter("bias", like.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.embedding_dim}, out_features={self.num_embeddings}, "
            f"bias={self.bias is not None}, sparse={self.sparse}"
        )
