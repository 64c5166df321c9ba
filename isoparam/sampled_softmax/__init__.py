"""Softmax cross-entropy over many classes, trained on sampled ones: what other projects import.

Here belongs what PyTorch lacks. It imports nothing of isoparam but the products of `network`.
"""

from isoparam.sampled_softmax.loss import (
    SampledLinearCrossEntropyLoss,
    descend,
    sampled_linear_cross_entropy,
)
from isoparam.sampled_softmax.reference import (
    log_weights,
    sampled_linear_cross_entropy_reference,
)
from isoparam.sampled_softmax.samplers import (
    LogUniformSampler,
    Sampler,
    Samples,
    UniformSampler,
    UnigramSampler,
)

__all__ = [
    "LogUniformSampler",
    "SampledLinearCrossEntropyLoss",
    "Sampler",
    "Samples",
    "UniformSampler",
    "UnigramSampler",
    "descend",
    "log_weights",
    "sampled_linear_cross_entropy",
    "sampled_linear_cross_entropy_reference",
]
