"""What the sampled softmax accepts: each check names the rule, the value and the way out."""

from typing import Literal

import torch
from torch import Tensor

from isoparam.sampled_softmax.samplers import Samples

Reduction = Literal["mean", "sum", "none"]


def check_option(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise a ValueError if an option is not among the allowed ones."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")


def check_classifier(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor | None = None,
) -> None:
    """Raise a ValueError if shapes, dtypes or devices of a linear classifier do not fit."""
    if input.dim() != 2 or not input.is_floating_point():
        raise ValueError(
            f"input must be floating point of shape (B, d), got {input.dtype} of shape "
            f"{tuple(input.shape)}; flatten the leading dimensions"
        )
    B, d = input.shape
    C = len(weight) if weight.dim() else 1
    expected: dict[str, tuple[Tensor, tuple[int, ...]]] = {"linear_weight": (weight, (C, d))}
    if bias is not None:
        expected["linear_bias"] = bias, (C,)
    if target is not None:
        expected["target"] = target, (B,)
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} beside input {(B, d)}, got {tuple(tensor.shape)}"
            )
        if tensor.device != input.device:
            raise ValueError(
                f"{name} must be on the device of input, {input.device}, got {tensor.device}; "
                "move one of them with .to(device)"
            )
        dtype = torch.int64 if name == "target" else input.dtype
        if tensor.dtype != dtype:
            raise ValueError(
                f"{name} must be {dtype} beside input {input.dtype}, got {tensor.dtype}; "
                "convert one of them with .to(dtype)"
            )


def check_samples(input: Tensor, target: Tensor, samples: Samples) -> None:  # noqa: A002
    """Raise a ValueError if the shapes, dtype or device of a draw do not fit the batch."""
    B, ids = len(target), samples.ids
    K = ids.shape[-1] if ids.dim() else 0
    if ids.dtype != torch.int64 or K == 0 or ids.shape not in {(K,), (B, K)}:
        raise ValueError(
            f"samples.ids must be int64 of shape (K,) or (B, K) with K >= 1 and B = {B}, got "
            f"{ids.dtype} of shape {tuple(ids.shape)}"
        )
    for name, tensor in samples._asdict().items():
        allowed = {(B,)} if name.startswith("target") else {ids.shape, (B, K)}
        if tensor.shape not in allowed:
            raise ValueError(
                f"samples.{name} must have one of the shapes {[tuple(s) for s in allowed]} "
                f"beside ids {tuple(ids.shape)}, got {tuple(tensor.shape)}"
            )
        if name != "ids" and not tensor.is_floating_point():
            raise ValueError(
                f"samples.{name} must be floating point, the logarithms that it holds, got "
                f"{tensor.dtype}"
            )
        if tensor.device != input.device:
            raise ValueError(
                f"samples.{name} must be on the device of input, {input.device}, got "
                f"{tensor.device}; sample with targets on that device"
            )


def check_classes(name: str, ids: Tensor, num_classes: int, valid: Tensor | None = None) -> None:
    """Raise a ValueError if an id is not a class, where `valid`."""
    if ids.numel() == 0:
        return
    low, high = ids.aminmax()
    if int(low) >= 0 and int(high) < num_classes:
        return
    wrong = (ids < 0) | (ids >= num_classes)
    if valid is not None:
        wrong &= valid
    if bool(wrong.any()):
        raise ValueError(
            f"{name} must be in [0, {num_classes}), got {int(ids[wrong][0])}"
            + ("" if valid is None else "; mark examples to skip with ignore_index")
        )


def raise_not_finite(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    bias: Tensor | None,
    samples: Samples | None = None,
) -> None:
    """Raise a ValueError that names what made a result not finite, of the rows that it read."""
    named = {"input": input, "linear_weight": weight, "linear_bias": bias}
    for name, tensor in {} if samples is None else samples._asdict().items():
        named[f"samples.{name}"] = tensor
    for name, tensor in named.items():
        if tensor is not None and not bool(tensor.isfinite().all()):
            value = float(tensor.detach()[~tensor.isfinite()][0])
            raise ValueError(
                f"{name} must be finite where it is read, got {value}; find its source "
                "with torch.autograd.detect_anomaly, or lower the learning rate"
            )
    raise ValueError(
        "logits must be finite, got an overflow of the product of input and linear_weight, whose "
        f"largest absolute values are {float(input.detach().abs().max())} and "
        f"{float(weight.detach().abs().max())}; scale them down"
    )
