"""The derived gradients of the sampled softmax, as a function for autograd.

The weight's gradient is sparse: it has a row for each sample and each target, or, where equal ones
are merged, for each class among them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isoparam.network.products import product
from isoparam.sampled_softmax.transforms import fill_hits


def keep_freed_blocks() -> None:
    """Make the C library keep the memory of a step for the next one, in a process of its own.

    A step takes and frees blocks of megabytes. glibc hands free memory back to the kernel beyond
    twice the largest block that was ever freed, which then clears each page again for the next
    step: up to a third of its time, in a process that has freed nothing large so far. This takes
    and frees a block of 30 MiB. It changes no result.

    Example:
        >>> keep_freed_blocks()
    """
    torch.empty(30 << 20, dtype=torch.uint8)


class SampledCrossEntropy(torch.autograd.Function):
    """Loss of each example and its derived gradients.

    With P_bk the softmax over the samples alone and m_b = sum_k e^{s_bk} / (e^{s_bc} + sum_k
    e^{s_bk}) the probability that is missing from the target:

        dl/dx_b = m_b (sum_k P_bk w_k - w_c)
        dl/dw_k = sum_b P_bk m_b x_b    for the sampled rows
        dl/dw_c = -m_b x_b              for the target's row

    So only matrix products read P, and the factors of a row scale x, which is smaller.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        linear_weight: Tensor,
        linear_bias: Tensor | None,
        ids: Tensor,
        target: Tensor,
        masked: Tensor | None,
        sampled_offset: Tensor,
        target_offset: Tensor,
        autocast: torch.dtype | None,
        sparse: bool,
        merge: bool,
    ) -> Tensor:
        """Return the loss (B,), with the corrections and the bias folded into the offsets.

        Products are in `autocast`, or else in the dtype of the sums, which is float32 or float64.
        `masked` (B, P) are the classes that are not negatives of an example.
        """
        dtype = torch.promote_types(input.dtype, torch.float32)
        of_products = autocast or dtype
        n = ids.numel()
        rows = torch.cat([ids.flatten(), target])  # (n + B,), n = K or B * K
        weight_rows = linear_weight.index_select(0, rows).to(of_products)  # (n + B, d)
        x = input.to(of_products)
        # The lowest number stands for -inf: a row without negatives is then like any other, with a
        # loss of 0, and not NaN.
        lowest = torch.finfo(dtype).min
        sampled_offset = sampled_offset.to(dtype).clamp(min=lowest)
        target_offset = target_offset.to(dtype)
        if linear_bias is not None:
            bias_rows = linear_bias.index_select(0, rows).to(dtype)
            sampled_offset = sampled_offset + bias_rows[:n].view_as(ids)
            target_offset = target_offset + bias_rows[n:]
        s_c = torch.linalg.vecdot(x.to(dtype), weight_rows[n:].to(dtype)).add_(target_offset)
        if ids.dim() == 1:
            s = _multiply(x, weight_rows[:n].t(), sampled_offset)  # (B, K)
        else:
            w = weight_rows[:n].view(*ids.shape, x.shape[1])  # (B, K, d)
            s = torch.bmm(w, x[:, :, None])[:, :, 0] + sampled_offset  # (B, K)
        if masked is not None:
            fill_hits(s, ids, masked, lowest)
        top = s.amax(1)  # (B,)
        p = torch.softmax(s, 1, out=s)
        # The largest of P is 1 / sum_k e^{s_k - top}, which spares a second sum of exponentials.
        margin = top.sub_(s_c).sub_(p.amax(1).log_())  # (B,), logsumexp_k s_k - s_c
        ctx.save_for_backward(x, weight_rows, p.to(of_products), margin, rows)
        ctx.like = input.dtype, len(linear_weight), linear_weight.dtype, sparse, ids.dim() == 1
        # A weight narrower than the sums is rounded once, after rows of equal classes are summed.
        ctx.merge = merge or torch.promote_types(linear_weight.dtype, dtype) != linear_weight.dtype
        return F.softplus(margin, threshold=40)  # 1 + e^-40 is 1 in float64 too

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of input, weight and bias, for the gradient of the loss (B,)."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the sampled softmax has no second derivative; for create_graph=True put its "
                "transforms log_weights, mask_accidental_hits and sampled_cross_entropy in sequence"
            )
        with torch.autocast(grad_loss.device.type, enabled=False):
            return *_gradients(ctx, grad_loss), *[None] * 8


def _gradients(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, weight_rows, p, margin, rows = ctx.saved_tensors
    input_dtype, C, weight_dtype, sparse, shared = ctx.like
    dtype, n = margin.dtype, weight_rows.shape[0] - x.shape[0]
    sampled_rows = weight_rows[:n]  # (n, d)
    g = margin.sigmoid().mul_(grad_loss)[:, None]  # (B, 1)
    grad_input = grad_weight = grad_bias = inverse = None
    if ctx.needs_input_grad[0]:
        if shared:
            grad_input = _multiply(p, sampled_rows)  # (B, d)
        else:
            grad_input = torch.bmm(p[:, None], sampled_rows.view(*p.shape, x.shape[1]))[:, 0]
        grad_input = grad_input.to(dtype).sub_(weight_rows[n:]).mul_(g).to(input_dtype)
    if ctx.merge:
        rows, inverse = rows.unique(return_inverse=True)
    if ctx.needs_input_grad[1]:
        values = weight_rows.new_empty(weight_rows.shape, dtype=dtype)  # (n + B, d)
        gx = torch.mul(x, -g, out=values[n:])  # (B, d), the targets' rows
        if shared:
            torch.neg(_multiply(p.t(), gx.to(p.dtype)).to(dtype), out=values[:n])
        else:
            torch.mul(-p[:, :, None], gx[:, None], out=values[:n].view(*p.shape, x.shape[1]))
        grad_weight = _rows_to_gradient(rows, inverse, values, C, weight_dtype, sparse)
    if ctx.needs_input_grad[2]:
        gp = p * g
        values = torch.cat([gp.sum(0) if shared else gp.flatten(), -g[:, 0]])
        grad_bias = _rows_to_gradient(rows, inverse, values, C, weight_dtype, sparse)
    return grad_input, grad_weight, grad_bias


def _multiply(a: Tensor, b: Tensor, offset: Tensor | None = None) -> Tensor:
    """Return a b + offset, in the dtype of the offset."""
    if 0 in (*a.shape, *b.shape):
        result = torch.mm(a, b)  # oneDNN does not take what is empty
        return result if offset is None else result.to(offset.dtype).add_(offset)
    if offset is None:
        return product(a[None], b[None])[0]
    if offset.dim() == 1 and offset.dtype == a.dtype:
        return product(a[None], b[None], offset[None, None])[0]
    return product(a[None], b[None])[0].to(offset.dtype).add_(offset)


def _rows_to_gradient(
    rows: Tensor, inverse: Tensor | None, values: Tensor, C: int, dtype: torch.dtype, sparse: bool
) -> Tensor:
    """A gradient with `values` in its `rows`; values with the same `inverse` are summed first."""
    shape = C, *values.shape[1:]
    if inverse is not None:
        sums = values.new_zeros(len(rows), *values.shape[1:])
        values = sums.index_add_(0, inverse, values)
    values = values.to(dtype)
    if sparse:
        return torch.sparse_coo_tensor(rows[None], values, shape, check_invariants=False)
    return values.new_zeros(shape).index_add_(0, rows, values)
