"""The private functions of PyTorch that make a step fast; public ones where they are missing.

`torch.mm` multiplies float32 by Intel's MKL, which uses half the width of an AMD processor's vector
registers. PyTorch's other library, oneDNN, uses all of it on any processor and applies bias and
ReLU in the same pass: on an AMD EPYC of 2024 it is 2.2 times as fast, on Intel's about equal.
"""

import platform
import warnings
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor


def _private(name: str) -> Callable[..., Any] | None:
    """A private function of torch; None, with a warning, where it is missing."""
    try:
        function: Callable[..., Any] = attrgetter(name)(torch)
    except AttributeError:
        warnings.warn(
            f"torch {torch.__version__} has no torch.{name}: "
            "training is slower, by public functions, and its last bits are others",
            stacklevel=2,
        )
        return None
    return function


def _multiplied(by: Callable[..., Any]) -> list[torch.dtype]:
    """The dtypes that oneDNN multiplies on this processor; bfloat16 needs AVX-512 or similar."""
    found: list[torch.dtype] = []
    for dtype in (torch.float32, torch.bfloat16):
        one = torch.ones(1, 1, dtype=dtype)
        with suppress(RuntimeError):
            by(one, one, None, "none", [], "")
            found.append(dtype)
    return found


_linear = (
    _private("ops.mkldnn._linear_pointwise.default")
    # On other machines it is missing, or no faster than torch.mm.
    if torch.backends.mkldnn.is_available() and platform.machine() in {"x86_64", "AMD64"}
    else None
)
_DTYPES = _multiplied(_linear) if _linear else []
_threshold = _private("ops.aten.threshold_backward.grad_input")
_fused_sgd = _private("_fused_sgd_")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """Return x W + b of each replica, or max(0, x W + b); no gradient is recorded.

    Args:
        x: (B, i) or (R, B, i), floating point, of any strides.
        weight: (i, o) or (R, i, o), of the same dtype, of any strides.
        bias: (1, o) or (R, 1, o), of the same dtype, or None.
        relu: whether to replace what is negative by 0.

    Returns:
        (B, o) or (R, B, o). The bits of a replica's part do not depend on the other replicas.

    Example:
        >>> product(torch.ones(2, 3), torch.ones(3, 1), torch.full((1, 1), -1.0))
        tensor([[2.],
                [2.]])
    """
    if _linear is None or x.device.type != "cpu" or x.dtype not in _DTYPES:
        if bias is None:
            result = torch.matmul(x, weight)
        else:
            result = (torch.addmm if x.ndim == 2 else torch.baddbmm)(bias, x, weight)
        return result.relu_() if relu else result
    if x.ndim == 3:
        results = [
            product(x[r], weight[r], None if bias is None else bias[r], relu=relu)
            for r in range(len(x))
        ]
        return results[0][None] if len(results) == 1 else torch.stack(results)
    attribute = "relu" if relu else "none"
    # Its weight is (o, i), as that of torch.nn.Linear.
    multiplied: Tensor = _linear(x, weight.T, None if bias is None else bias[0], attribute, [], "")
    return multiplied


def zero_where_inactive(delta: Tensor, output: Tensor) -> Tensor:
    """Return delta, in place, with 0 where a ReLU's output is 0.

    Args:
        delta: of any shape, floating point.
        output: of the ReLU, of the same shape and dtype.

    Example:
        >>> zero_where_inactive(torch.ones(3), torch.tensor([0.0, 0.5, 2.0]))
        tensor([0., 1., 1.])
    """
    if _threshold is None:
        delta.masked_fill_(output <= 0, 0.0)
    else:
        _threshold(delta, output, 0, grad_input=delta)
    return delta


def update(
    weights: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Tensor],
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """A step of `torch.optim.SGD`, in place: v <- mu v + g + lambda w, w <- w - eta v.

    Args:
        weights: w, float32.
        gradients: g, of the same shapes, which may be overwritten.
        momenta: v, of the same shapes; left alone where `momentum` is 0.
        learning_rate: eta.
        momentum: mu.
        weight_decay: lambda.

    Example:
        >>> w, v = torch.ones(1), torch.ones(1)
        >>> update([w], [torch.ones(1)], [v], learning_rate=0.5, momentum=0.5, weight_decay=0.0)
        >>> w, v
        (tensor([0.2500]), tensor([1.5000]))
    """
    if _fused_sgd is None:
        for w, g, v in zip(weights, gradients, momenta, strict=True):
            g.add_(w, alpha=weight_decay)
            w.add_(v.mul_(momentum).add_(g) if momentum else g, alpha=-learning_rate)
        return
    _fused_sgd(
        weights,
        gradients,
        momenta if momentum else [],
        lr=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )
