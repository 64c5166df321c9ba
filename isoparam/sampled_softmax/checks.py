"""What the sampled softmax accepts: each check names the rule, the value and the way out."""

from typing import Literal

import torch
from torch import Tensor

from isoparam.sampled_softmax.draws import Samples, class_ids

Reduction = Literal["mean", "sum", "none"]


def check_option(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise a ValueError if an option is not among the allowed ones."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")


def check_classifier(
    input: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor | None = None
) -> None:
    """Raise a ValueError if shapes, dtypes or devices of a linear classifier do not fit."""
    if input.dim() == 0 or not input.is_floating_point():
        raise ValueError(
            f"input must be floating point of shape (..., d), got {input.dtype} of shape "
            f"{tuple(input.shape)}"
        )
    d = input.shape[-1]
    C = len(weight) if weight.dim() else 1
    expected: dict[str, tuple[Tensor, tuple[int, ...]]] = {"linear_weight": (weight, (C, d))}
    if bias is not None:
        expected["linear_bias"] = bias, (C,)
    if target is not None:
        expected["target"] = target, input.shape[:-1]
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(
                f"{name} must have shape {tuple(shape)} beside input {tuple(input.shape)}, got "
                f"{tuple(tensor.shape)}"
            )
        _check_device(name, tensor, "input", input, "; move one of them with .to(device)")
        if name == "target":
            class_ids(name, tensor)
        elif tensor.dtype != input.dtype and not (
            tensor.is_floating_point() and autocast_dtype(input, tensor)
        ):
            raise ValueError(
                f"{name} must be {input.dtype} beside input {input.dtype}, got {tensor.dtype}; "
                "convert one of them with .to(dtype), or use torch.autocast"
            )


def autocast_dtype(*tensors: Tensor) -> torch.dtype | None:
    """The dtype that torch.autocast gives a product of floating tensors of one device.

    None outside of autocast, and for float64, which it leaves alone.
    """
    kind = tensors[0].device.type
    if any(tensor.dtype == torch.float64 for tensor in tensors):
        return None
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def _check_device(name: str, tensor: Tensor, other: str, like: Tensor, way_out: str = "") -> None:
    if tensor.device != like.device:
        raise ValueError(
            f"{name} must be on the device of {other}, {like.device}, got {tensor.device}{way_out}"
        )


def check_class_weights(weight: Tensor | None, linear_weight: Tensor) -> None:
    """Raise a ValueError if there is not one weight for each class, on the classifier's device."""
    if weight is None:
        return
    if weight.shape != linear_weight.shape[:1] or not weight.is_floating_point():
        raise ValueError(
            f"weight must be floating point of shape {tuple(linear_weight.shape[:1])}, got "
            f"{weight.dtype} of shape {tuple(weight.shape)}"
        )
    _check_device("weight", weight, "linear_weight", linear_weight)


def check_positives(positives: Tensor | None, target: Tensor) -> None:
    """Raise a ValueError if positives are not some classes for each target."""
    if positives is None:
        return
    class_ids("positives", positives)
    if positives.shape[:-1] != target.shape or positives.dim() != target.dim() + 1:
        raise ValueError(
            f"positives must have shape {(*target.shape, 'P')} beside target "
            f"{tuple(target.shape)}, got {tuple(positives.shape)}"
        )
    _check_device("positives", positives, "target", target)


def check_sparse(**tensors: Tensor | None) -> None:
    """Raise a ValueError if a tensor cannot take a sparse gradient."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.grad_fn is not None and torch.is_grad_enabled():
            raise ValueError(
                f"{name} must be a leaf to take a sparse gradient, got the result of "
                f"{tensor.grad_fn.name()}; pass sparse=False"
            )


def check_samples(input: Tensor, target: Tensor, samples: Samples) -> None:
    """Raise a ValueError if the shapes, dtypes or device of a draw do not fit the batch (B,)."""
    B, ids = len(target), samples.ids
    K = ids.shape[-1] if ids.dim() else 0
    if ids.dtype != torch.int64 or K == 0 or ids.shape not in {(K,), (B, K)}:
        raise ValueError(
            f"samples.ids must be int64 of shape (K,) or (B, K) with K >= 1 and B = {B}, got "
            f"{ids.dtype} of shape {tuple(ids.shape)}"
        )
    for name, tensor in samples._asdict().items():
        if tensor is None:
            continue
        allowed = {(B,)} if name.startswith("target") else {ids.shape, (B, K)}
        if tensor.shape not in allowed:
            raise ValueError(
                f"samples.{name} must have one of the shapes {[tuple(s) for s in allowed]} "
                f"beside ids {tuple(ids.shape)}, got {tuple(tensor.shape)}"
            )
        if name == "counts":
            class_ids(f"samples.{name}", tensor)
        elif name != "ids" and not tensor.is_floating_point():
            raise ValueError(
                f"samples.{name} must be floating point, the logarithms that it holds, got "
                f"{tensor.dtype}"
            )
        way_out = "; sample with targets on that device"
        _check_device(f"samples.{name}", tensor, "input", input, way_out)


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
    input: Tensor, weight: Tensor, bias: Tensor | None, samples: Samples | None = None
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
