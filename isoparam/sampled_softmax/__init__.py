"""Softmax cross-entropy over many classes, trained on sampled ones: what other projects import.

Here belongs what PyTorch lacks. It imports nothing of isoparam but the products of `network`.
"""

from isoparam.sampled_softmax.draws import LawSampler, Sampler, Samples
from isoparam.sampled_softmax.gradients import keep_freed_blocks
from isoparam.sampled_softmax.loss import descend, sampled_linear_cross_entropy
from isoparam.sampled_softmax.module import SampledLinearCrossEntropyLoss
from isoparam.sampled_softmax.samplers import (
    CategoricalSampler,
    InBatchSampler,
    LogUniformSampler,
    MixedSampler,
    UniformSampler,
    UnigramSampler,
)
from isoparam.sampled_softmax.transforms import (
    log_weights,
    mask_accidental_hits,
    sampled_cross_entropy,
)

__all__ = [
    "CategoricalSampler",
    "InBatchSampler",
    "LawSampler",
    "LogUniformSampler",
    "MixedSampler",
    "SampledLinearCrossEntropyLoss",
    "Sampler",
    "Samples",
    "UniformSampler",
    "UnigramSampler",
    "descend",
    "keep_freed_blocks",
    "log_weights",
    "mask_accidental_hits",
    "sampled_cross_entropy",
    "sampled_linear_cross_entropy",
]
