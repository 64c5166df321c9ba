"""What users bring: shapes, class weights, other positives, in-batch negatives, counts, repeats."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from isoparam.sampled_softmax import (
    CategoricalSampler,
    InBatchSampler,
    LogUniformSampler,
    MixedSampler,
    SampledLinearCrossEntropyLoss,
    UniformSampler,
    UnigramSampler,
    log_weights,
    mask_accidental_hits,
    sampled_cross_entropy,
    sampled_linear_cross_entropy,
)

# Sums of a few terms near 1 in float64.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
WEIGHTINGS = ["importance", "stated", "tensorflow", "none"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def case(*shape: int, C=8, d=3, grad=True):
    """Features, weight, bias and targets."""
    g = seeded()
    tensors = (torch.randn(size, generator=g).double() for size in ((*shape, d), (C, d), (C,)))
    x, W, b = (t.requires_grad_(grad) for t in tensors)
    return x, W, b, torch.randint(C, shape, generator=g)


def dense_gradients(loss, *leaves: Tensor):
    found = torch.autograd.grad(loss, leaves)
    return [g.to_dense() if g.is_sparse else g for g in found]


# ------------------------------------------------------------------- shapes and dtypes


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (2, 0), (2, 1, 3)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("per_example", [False, True])
def test_features_of_any_shape_are_the_flat_ones(shape, reduction, per_example):
    dtype = torch.int32 if per_example else torch.uint8
    x, W, b, target = case(*shape)
    sampler = LogUniformSampler(8)
    samples = sampler.sample(5, target.to(dtype), per_example=per_example, generator=seeded())
    loss = sampled_linear_cross_entropy(
        x, W, target.to(dtype), samples, linear_bias=b, reduction=reduction
    )
    flat = sampled_linear_cross_entropy(
        x.reshape(-1, 3), W, target.flatten(), samples, linear_bias=b, reduction="none"
    )
    assert loss.shape == (shape if reduction == "none" else ())
    wanted = {"mean": flat.mean(), "sum": flat.sum(), "none": flat.reshape(shape)}[reduction]
    torch.testing.assert_close(loss, wanted, equal_nan=True)
    for actual, expected in zip(
        dense_gradients(loss.sum(), x, W, b), dense_gradients(wanted.sum(), x, W, b), strict=True
    ):
        torch.testing.assert_close(actual, expected)
    module = SampledLinearCrossEntropyLoss(
        3, 8, num_samples=5, per_example=per_example, reduction=reduction, dtype=torch.float64
    )
    assert module(x, target.to(dtype)).shape == loss.shape
    module.eval()
    logits = module.linear(x)
    exact = functional.cross_entropy(logits.reshape(-1, 8), target.flatten(), reduction="none")
    wanted = {"mean": exact.mean(), "sum": exact.sum(), "none": exact.reshape(shape)}[reduction]
    torch.testing.assert_close(module(x, target.to(dtype)), wanted, equal_nan=True)
    torch.testing.assert_close(module.log_prob(x), logits.log_softmax(-1))
    assert torch.equal(module.predict(x), logits.argmax(-1))


@pytest.mark.parametrize("per_example", [False, True])
def test_strides_do_not_matter(per_example):
    x, W, _, target = case(5)
    samples = LogUniformSampler(8).sample(5, target, per_example=per_example, generator=seeded())
    expected = sampled_linear_cross_entropy(x, W, target, samples)
    column = torch.stack([target, target], 1)[:, 1]
    assert not column.is_contiguous()
    x, W = (t.T.contiguous().T for t in (x, W))
    strided = sampled_linear_cross_entropy(x, W, column, samples, sparse=False)
    torch.testing.assert_close(strided, expected, **EXACT)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [False, True])
def test_class_weights_are_those_of_torch(reduction, ignored):
    x, W, b, target = case(6)
    if ignored:
        target[2] = -100
    weight = torch.linspace(0, 2, 8).double()
    samples = UniformSampler(8, replacement=False).sample(8, target)  # the full softmax
    loss = sampled_linear_cross_entropy(
        x, W, target, samples, linear_bias=b, weight=weight, reduction=reduction
    )
    full = functional.cross_entropy(
        functional.linear(x, W, b), target, weight=weight, reduction=reduction
    )
    torch.testing.assert_close(loss, full, **EXACT)
    for actual, expected in zip(
        dense_gradients(loss.sum(), x, W, b), dense_gradients(full.sum(), x, W, b), strict=True
    ):
        torch.testing.assert_close(actual, expected, **EXACT)
    module = SampledLinearCrossEntropyLoss(
        3,
        8,
        num_samples=8,
        sampler=UniformSampler(8, replacement=False),
        weight=weight,
        reduction=reduction,
        dtype=torch.float64,
    )
    torch.testing.assert_close(module(x, target), module.eval()(x, target), **EXACT)
    assert "weight" in module.state_dict()


# ----------------------------------------------------------------------- other positives


@pytest.mark.parametrize("mask_hits", [False, True])
@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_other_positives_are_no_negatives(mask_hits, per_example, shape):
    x, W, _, _ = case(*shape)
    target = torch.tensor([0, 3, 5, 7]).reshape(shape)
    # Classes twice, the target among them, and what fills up.
    positives = torch.tensor([[1, 2, 1], [-1, -1, -1], [5, 0, 100], [6, 6, 7]]).reshape(*shape, 3)
    samples = LogUniformSampler(8).sample(40, target, per_example=per_example, generator=seeded())
    loss = sampled_linear_cross_entropy(
        x, W, target, samples, positives=positives, mask_hits=mask_hits, reduction="none"
    )
    logits = (x @ W.T).reshape(4, 8)
    sampled = logits.gather(1, samples.ids.expand(4, 40)) - samples.log_expected_counts
    own = positives.reshape(4, 3)
    if mask_hits:
        own = torch.cat([own, target.reshape(4, 1)], 1)
    sampled = mask_accidental_hits(sampled, samples.ids, own)
    wanted = sampled_cross_entropy(logits.gather(1, target.reshape(4, 1))[:, 0], sampled)
    torch.testing.assert_close(loss, wanted.reshape(shape), **EXACT)
    for actual, expected in zip(
        dense_gradients(loss.sum(), x, W), dense_gradients(wanted.sum(), x, W), strict=True
    ):
        torch.testing.assert_close(actual, expected, **EXACT)


@pytest.mark.parametrize("shape", [(), (3,), (3, 1)])
def test_other_positives_leave_the_exact_loss_too(shape):
    module = SampledLinearCrossEntropyLoss(
        3,
        8,
        num_samples=8,
        sampler=UniformSampler(8, replacement=False),
        reduction="none",
        dtype=torch.float64,
    )
    x, _, _, target = case(*shape)
    positives = torch.stack([(target + 1) % 8, target, torch.full_like(target, -1)], -1).int()
    sampled = module(x, target, positives=positives)
    exact = module.eval()(x, target, positives=positives)
    torch.testing.assert_close(sampled, exact, **EXACT)
    assert bool((exact < module(x, target)).all())


# ------------------------------------------------------------------ in-batch and mixed

LOGITS = torch.tensor([0.3, -1.2, 0.9, 0.1], dtype=torch.float64)
Q = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


class Given(UniformSampler):
    """A uniform sampler that draws what it is given."""

    def _draw(self, *_: object) -> Tensor:
        return self.given


def denominator(samples, target):
    """The estimated denominator of the first example of a batch."""
    x, W = torch.ones(len(target), 1).double(), LOGITS[:, None]
    loss = sampled_linear_cross_entropy(x, W, target, samples, reduction="none")
    return float((loss[0] + LOGITS[target[0]]).exp())


@pytest.mark.parametrize("merge_repeats", [False, True])
@pytest.mark.parametrize("target", range(4))
def test_the_batch_itself_is_an_unbiased_draw(target, merge_repeats):
    sampler = InBatchSampler(Q, merge_repeats=merge_repeats)
    mean = 0.0
    for others in itertools.product(range(4), repeat=2):
        batch = torch.tensor([target, *others])
        probability = math.prod(float(Q[j]) for j in others)
        mean += probability * denominator(sampler.sample(None, batch), batch)
    assert mean == pytest.approx(float(LOGITS.exp().sum()), rel=1e-12)


@pytest.mark.parametrize("merge_repeats", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("others", [0, 1, 2])
def test_a_mixture_is_unbiased(others, batch_first, merge_repeats):
    uniform, in_batch = Given(4), InBatchSampler(Q)
    order = (in_batch, uniform) if batch_first else (uniform, in_batch)
    sampler = MixedSampler(*order, merge_repeats=merge_repeats)
    mean = 0.0
    for rest in itertools.product(range(4), repeat=others):
        batch = torch.tensor([2, *rest])
        for given in itertools.product(range(4), repeat=2):
            uniform.given = torch.tensor(given)
            probability = math.prod(float(Q[j]) for j in rest) / 16
            mean += probability * denominator(sampler.sample(2, batch), batch)
    assert mean == pytest.approx(float(LOGITS.exp().sum()), rel=1e-12)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_mixture_of_two_laws_has_the_counts_of_both(weighting):
    first, second = UnigramSampler(Q, 1.0), UniformSampler(4)
    draw = MixedSampler(first, second).sample(
        3, torch.tensor([0, 2]), per_example=True, generator=seeded()
    )
    expected = 3 * (Q + 0.25)
    torch.testing.assert_close(draw.log_expected_counts.exp(), expected[draw.ids], **EXACT)
    torch.testing.assert_close(draw.log_probs.exp(), (Q + 0.25)[draw.ids] / 2, **EXACT)
    torch.testing.assert_close(draw.target_log_expected_counts.exp(), expected[[0, 2]], **EXACT)
    assert draw.ids.shape == (2, 6)
    sampled, _ = log_weights(draw, weighting)
    assert sampled.shape == draw.ids.shape


def test_ignored_targets_are_no_draws():
    sampler = InBatchSampler(Q)
    draw = sampler.sample(None, torch.tensor([[1, -100], [3, 3]]))
    assert draw.ids.tolist() == [1, 3, 3]
    torch.testing.assert_close(draw.log_expected_counts.exp(), 2 * Q[[1, 3, 3]], **EXACT)
    module = SampledLinearCrossEntropyLoss(2, 4, num_samples=None, sampler=sampler)
    for ignored in (torch.tensor([-100, -100]), torch.tensor([], dtype=torch.int64)):
        module(torch.ones(len(ignored), 2), ignored).backward()
        assert not module.linear.weight.grad.to_dense().any()


def test_towers_compose_the_loss_from_the_transforms():
    # The items of a batch come out of a network; no table of all items is ever computed.
    sampler = InBatchSampler(Q)
    users, target = torch.randn(5, 3).double(), torch.tensor([0, 3, 3, 1, 2])
    tower = torch.nn.Linear(2, 3).double()
    features = torch.randn(4, 2).double()
    samples = sampler.sample(None, target)
    items = tower(features[samples.ids])  # (K, d)
    sampled_offset, target_offset = log_weights(samples)
    logits = mask_accidental_hits(users @ items.T + sampled_offset, samples.ids, target)
    own = torch.linalg.vecdot(users, tower(features[target])) + target_offset
    loss = sampled_cross_entropy(own, logits).mean()
    loss.backward()
    by_tower = tower.weight.grad.clone()
    tower.zero_grad()
    whole = sampled_linear_cross_entropy(users, tower(features), target, samples, sparse=False)
    whole.backward()
    torch.testing.assert_close(loss, whole, **EXACT)
    torch.testing.assert_close(by_tower, tower.weight.grad, **EXACT)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InBatchSampler(Q).sample(3, torch.tensor([1])), "num_samples must be None"),
        (
            lambda: InBatchSampler(Q).sample(None, torch.tensor([1]), per_example=True),
            "per_example must be False",
        ),
        (lambda: InBatchSampler([0.5, 0.4]), "must sum to 1"),
        (lambda: MixedSampler(UniformSampler(4), UniformSampler(5)), "got 4 and 5"),
        (
            lambda: MixedSampler(UniformSampler(4), UniformSampler(4, replacement=False)),
            "pass replacement=True to both",
        ),
        (
            lambda: MixedSampler(InBatchSampler(Q), UniformSampler(4)).sample(0, torch.tensor([1])),
            "num_samples must be at least 1, got 0",
        ),
        (lambda: UniformSampler(4).sample(None, torch.tensor([1])), "got None, which is not an in"),
        (
            lambda: SampledLinearCrossEntropyLoss(2, 4, num_samples=4, sampler=InBatchSampler(Q)),
            "num_samples must be None",
        ),
    ],
)
def test_draws_that_can_not_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------- counts


def test_counts_come_as_they_are():
    expected = UnigramSampler(torch.tensor([3.0, 1.0, 4.0])).log_probs(torch.arange(3))
    readonly = np.array([3, 1, 4], dtype=np.int32)
    readonly.flags.writeable = False
    for counts in ([3, 1, 4], (3.0, 1.0, 4.0), np.array([3, 1, 4], dtype=np.uint16), readonly):
        assert torch.equal(UnigramSampler(counts).log_probs(torch.arange(3)), expected)
    probabilities = np.array([0.5, 0.25, 0.25], dtype=np.float32)
    assert CategoricalSampler(probabilities).log_probs(torch.arange(3)).exp().tolist() == [
        0.5,
        0.25,
        0.25,
    ]


def test_smoothing_makes_room_for_what_was_not_seen():
    q = UnigramSampler([0, 3, 1], 0.5, smoothing=1.0).log_probs(torch.arange(3)).exp()
    mass = [1.0, 2.0, math.sqrt(2)]
    assert q.tolist() == pytest.approx([m / sum(mass) for m in mass], rel=1e-14)


@pytest.mark.parametrize(
    ("counts", "smoothing", "message"),
    [
        ([0, 1], 0.0, "got 0.0 for class 0; .* smoothing="),
        ([2, -1], 5.0, "got -1.0 for class 1"),
        ([2, 1], -1.0, "smoothing must be at least 0 and finite, got -1.0"),
        ([2, 1], math.nan, "smoothing must be at least 0 and finite, got nan"),
        ([[2, 1]], 1.0, r"counts must have shape \(C,\) with C >= 1, got \(1, 2\)"),
        ([], 1.0, r"counts must have shape \(C,\) with C >= 1, got \(0,\)"),
    ],
)
def test_bad_counts(counts, smoothing, message):
    with pytest.raises(ValueError, match=message):
        UnigramSampler(counts, smoothing=smoothing)


def test_counts_that_stream_end_where_known_ones_are():
    C, steps = 50, 400
    data = LogUniformSampler(C)
    nothing = torch.zeros(0, dtype=torch.int64)
    given = torch.zeros(C)
    sampler = UnigramSampler(given, 0.75, smoothing=1.0)
    seen, tables = torch.zeros(C), 0
    for step in range(steps):
        batch = data.sample(20, nothing, generator=seeded(step)).ids
        before = sampler.log_probs(torch.arange(C))
        sampler.update(torch.cat([batch, torch.tensor([-100, C])]).int())
        tables += not torch.equal(before, sampler.log_probs(torch.arange(C)))
        seen += batch.bincount(minlength=C)
    assert torch.equal(sampler.counts, seen.double())
    assert not given.any()  # the user's own are not touched
    # A table whenever the counts grow by a tenth: from 50 to 8,050 that is 53 times at most.
    assert 10 < tables <= math.log(161) / math.log(1.1) + 1
    # The last table knows all but the last tenth.
    known = UnigramSampler(seen, 0.75, smoothing=1.0).log_probs(torch.arange(C))
    assert float((sampler.log_probs(torch.arange(C)) - known).abs().max()) < 0.3
    draw = sampler.sample(1000, nothing, generator=seeded())
    assert torch.equal(draw.log_probs, sampler.log_probs(draw.ids))
    with pytest.raises(ValueError, match=r"ids must be of an integer dtype, got torch\.float32"):
        sampler.update(torch.ones(2))


def test_an_in_batch_law_follows_the_stream():
    law = UnigramSampler([0, 0, 0, 0], 1.0, smoothing=1.0)
    sampler = InBatchSampler(law)
    law.update(torch.tensor([3, 3, 3, 3]))
    draw = sampler.sample(None, torch.tensor([3, 0, 1]))
    torch.testing.assert_close(
        draw.log_expected_counts.exp(), torch.tensor([5, 1, 1]).double() / 4, **EXACT
    )


# ------------------------------------------------------------------------------- repeats


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("mask_hits", [False, True])
@pytest.mark.parametrize("build", [UniformSampler, LogUniformSampler, "unigram", "mixed"])
def test_repeats_once_are_the_same_loss(build, weighting, mask_hits):
    builders = {
        "unigram": lambda C, **options: UnigramSampler(range(1, C + 1), **options),
        "mixed": lambda C, **options: MixedSampler(
            UniformSampler(C), InBatchSampler([1 / C] * C), **options
        ),
    }
    x, W, b, target = case(9)  # with equal targets
    assert len(target.unique()) < 9
    found = []
    for merge_repeats in (False, True):
        sampler = builders.get(build, build)(8, merge_repeats=merge_repeats)
        samples = sampler.sample(30, target, generator=seeded())
        loss = sampled_linear_cross_entropy(
            x, W, target, samples, linear_bias=b, weighting=weighting, mask_hits=mask_hits
        )
        found.append([loss, *dense_gradients(loss, x, W, b)])
        (by_weight,) = torch.autograd.grad(sampled_linear_cross_entropy(x, W, target, samples), [W])
        rows = by_weight._indices()[0]
        distinct = torch.cat([samples.ids, target]).unique()
        if merge_repeats:
            assert samples.ids.unique().numel() == samples.ids.numel()
            assert int(samples.counts.sum()) == 30 + 9 * (build == "mixed")
            assert torch.equal(rows, distinct)
        else:
            assert samples.counts is None
            assert len(rows) == len(samples.ids) + 9
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, **EXACT)


def test_the_draw_behind_merged_repeats_is_the_same():
    target = torch.tensor([2])
    plain, merged = (
        LogUniformSampler(50, merge_repeats=merge).sample(400, target, generator=seeded())
        for merge in (False, True)
    )
    ids, counts = plain.ids.unique(return_counts=True)
    assert torch.equal(merged.ids, ids)
    assert torch.equal(merged.counts, counts)
    assert torch.equal(merged.log_expected_counts, merged.log_probs + math.log(400))
    assert torch.equal(merged.target_log_expected_counts, plain.target_log_expected_counts)


def test_draws_without_repeats_have_nothing_to_merge():
    sampler = LogUniformSampler(50, replacement=False, merge_repeats=True)
    draw = sampler.sample(20, torch.tensor([2]), generator=seeded())
    assert draw.counts.tolist() == [1] * 20
    assert sampler.sample(20, torch.tensor([2]), per_example=True).counts is None
    shared = UniformSampler(50, merge_repeats=True)
    assert shared.sample(60, torch.tensor([2]), per_example=True).ids.shape == (1, 60)


# ---------------------------------------------------------------------------------- repr


def test_what_samplers_and_module_say_of_themselves():
    law = UnigramSampler([1, 2], smoothing=1.0, merge_repeats=True)
    assert repr(UniformSampler(5, replacement=False)) == (
        "UniformSampler(num_classes=5, replacement=False, merge_repeats=False)"
    )
    assert repr(MixedSampler(InBatchSampler(law), UniformSampler(2))) == (
        "MixedSampler(InBatchSampler(UnigramSampler(num_classes=2, power=0.75, smoothing=1.0, "
        "replacement=True, merge_repeats=True), merge_repeats=False), UniformSampler("
        "num_classes=2, replacement=True, merge_repeats=False), merge_repeats=False)"
    )
    module = SampledLinearCrossEntropyLoss(3, 2, num_samples=4, sampler=law)
    assert f"num_samples=4, sampler={law!r}" in repr(module)
    assert "in_features=3, out_features=2, bias=False, sparse=True" in repr(module)
