"""The derived gradients of the sampled softmax, as a function for autograd.

The weight's gradient is sparse: it has a row for each sample and each target, repeats included.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isoparam.network.products import product

# A step takes and frees blocks of megabytes. The C library hands free memory back to the kernel
# beyond twice the largest block that was ever freed, which then clears each page anew for the next
# step: up to a third of its time, in a process that has freed nothing large so far.
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
        input: Tensor,  # noqa: A002
        linear_weight: Tensor,
        linear_bias: Tensor | None,
        ids: Tensor,
        target: Tensor,
        sampled_offset: Tensor,
        target_offset: Tensor,
        mask_hits: bool,
        sparse: bool,
    ) -> Tensor:
        """Return the loss (B,), with the corrections and the bias folded into the offsets."""
        dtype = torch.promote_types(input.dtype, torch.float32)
        n = ids.numel()
        rows = torch.cat([ids.flatten(), target])  # (n + B,), n = K or B * K
        weight_rows = linear_weight.index_select(0, rows).to(dtype)  # (n + B, d)
        x = input.to(dtype)
        # The lowest number stands for -inf: a row without negatives is then like any other, with a
        # loss of 0, and not NaN.
        lowest = torch.finfo(dtype).min
        sampled_offset = sampled_offset.to(dtype).clamp(min=lowest)
        target_offset = target_offset.to(dtype)
        if linear_bias is not None:
            bias_rows = linear_bias.index_select(0, rows).to(dtype)
            sampled_offset = sampled_offset + bias_rows[:n].view_as(ids)
            target_offset = target_offset + bias_rows[n:]
        s_c = torch.linalg.vecdot(x, weight_rows[n:]).add_(target_offset)  # (B,)
        if ids.dim() == 1:
            s = _multiply(x, weight_rows[:n].t(), sampled_offset)  # (B, K)
        else:
            w = weight_rows[:n].view(*ids.shape, -1)  # (B, K, d)
            s = torch.bmm(w, x[:, :, None])[:, :, 0] + sampled_offset  # (B, K)
        if mask_hits:
            _mask_hits(s, ids, target, lowest)
        top = s.amax(1)  # (B,)
        p = torch.softmax(s, 1, out=s)
        # The largest of P is 1 / sum_k e^{s_k - top}, which spares a second sum of exponentials.
        margin = top.sub_(s_c).sub_(p.amax(1).log_())  # (B,), logsumexp_k s_k - s_c
        ctx.save_for_backward(x, weight_rows, p, margin, rows)
        ctx.like = input.dtype, linear_weight.shape, linear_weight.dtype, sparse
        return F.softplus(margin, threshold=40)  # 1 + e^-40 is 1 in float64 too

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of input, weight and bias, for the gradient of the loss (B,)."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the sampled softmax has no second derivative; for create_graph=True use "
                "sampled_linear_cross_entropy_reference"
            )
        x, weight_rows, p, margin, rows = ctx.saved_tensors
        input_dtype, shape, weight_dtype, sparse = ctx.like
        n = weight_rows.shape[0] - x.shape[0]
        shared = n == p.shape[1]
        sampled_rows = weight_rows[:n]  # (n, d)
        g = margin.sigmoid().mul_(grad_loss)[:, None]  # (B, 1)
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            if shared:
                grad_input = _multiply(p, sampled_rows)  # (B, d)
            else:
                grad_input = torch.bmm(p[:, None], sampled_rows.view(*p.shape, -1))[:, 0]
            grad_input = grad_input.sub_(weight_rows[n:]).mul_(g).to(input_dtype)
        if ctx.needs_input_grad[1]:
            values = torch.empty_like(weight_rows)  # (n + B, d)
            gx = torch.mul(x, -g, out=values[n:])  # (B, d), the targets' rows
            if shared:
                torch.neg(_multiply(p.t(), gx), out=values[:n])
            else:
                torch.mul(-p[:, :, None], gx[:, None], out=values[:n].view(*p.shape, -1))
            grad_weight = _rows_to_gradient(rows, values.to(weight_dtype), shape, sparse)
        if ctx.needs_input_grad[2]:
            gp = p * g
            values = torch.cat([gp.sum(0) if shared else gp.flatten(), -g[:, 0]])
            grad_bias = _rows_to_gradient(rows, values.to(weight_dtype), shape[:1], sparse)
        return grad_input, grad_weight, grad_bias, None, None, None, None, None, None


def _multiply(a: Tensor, b: Tensor, offset: Tensor | None = None) -> Tensor:
    if offset is None or offset.dim() == 1:
        return product(a[None], b[None], None if offset is None else offset[None, None])[0]
    return product(a[None], b[None])[0].add_(offset)


def _mask_hits(s: Tensor, ids: Tensor, target: Tensor, value: float) -> None:
    if ids.dim() == 1 and not ids.is_cuda:
        # Few rows have a hit when there are many classes, and to find them costs less than to
        # compare all. A GPU would have to wait for their number.
        hit = torch.isin(target, ids).nonzero()[:, 0]  # the rows with a hit
        s[hit] = s[hit].masked_fill(ids == target[hit, None], value)
    else:
        s.masked_fill_(ids == target[:, None], value)


def _rows_to_gradient(rows: Tensor, values: Tensor, shape: torch.Size, sparse: bool) -> Tensor:
    if sparse:
        return torch.sparse_coo_tensor(rows[None], values, shape, check_invariants=False)
    return values.new_zeros(shape).index_add_(0, rows, values)
