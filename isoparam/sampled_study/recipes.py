"""What the two experiments train and how: values alone, so that nothing here needs torch."""

from dataclasses import dataclass
from typing import Literal

from isoparam.network.recipe import Schedule

# How the images of an epoch are drawn: each once, or by Zipf's law.
Law = Literal["uniform", "zipf"]


@dataclass(frozen=True)
class LinearRecipe(Schedule):
    """One training of the linear classifier.

    Attributes:
        weighting: "full" for the softmax over all C classes, or how samples are weighted.
        samples: classes K to sample for each example, in [1, C - 1]; not read for "full".
    """

    weighting: Literal["full", "importance", "stated"]
    samples: int | None


@dataclass(frozen=True)
class InstanceRecipe(Schedule):
    """One training of instance discrimination, with as many classes C as images.

    Attributes:
        images: how the images of an epoch's C views are drawn.
        weighting: "full", or how samples are weighted in the loss.
        samples: classes K to sample for a batch, 1 or more; not read for "full".
        exponent: of the frequencies that samples are drawn by, for "zipf".
        hidden: units of the encoder's hidden layer.
        features: units of its output.
        class_rate: learning rate of the classes' vectors, in units of the encoder's.
        momentum: of the encoder, in [0, 1).
        evaluations: how many, evenly spread over the epochs, the last one at the end.
    """

    images: Law
    weighting: Literal["full", "importance", "stated", "none"]
    samples: int | None
    exponent: float
    hidden: int
    features: int
    class_rate: float
    momentum: float
    evaluations: int
