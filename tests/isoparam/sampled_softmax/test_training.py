"""The loss inside of what people train with: DDP, torch.compile, export, checkpoints, tables."""

import math
import operator
import socket

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from isoparam.sampled_softmax import (
    InBatchSampler,
    LogUniformSampler,
    SampledLinearCrossEntropyLoss,
    UniformSampler,
    sampled_linear_cross_entropy,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------- two processes

# Each of two processes trains on half of a batch; then one process on all of it.
PARALLEL = """
import os, sys
import torch
from torch import distributed, nn
from isoparam.sampled_softmax import SampledLinearCrossEntropyLoss, UnigramSampler

class Model(nn.Module):
    def __init__(self, merge_repeats):
        super().__init__()
        self.below = nn.Linear(4, 6)
        sampler = UnigramSampler(range(1, 51), merge_repeats=bool(merge_repeats))
        self.loss = SampledLinearCrossEntropyLoss(
            6, 50, num_samples=8, bias=True, sampler=sampler, reduction="sum"
        )

    def forward(self, x, target, generator):
        return self.loss(self.below(x), target, generator=generator)

def train(model, x, target, seed):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        model(x, target, torch.Generator().manual_seed(seed + step)).backward()
        optimizer.step()

def main():
    rank, port = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    generator = torch.Generator().manual_seed(1)
    x, target = torch.randn(8, 4, generator=generator), torch.randint(50, (8,), generator=generator)
    # All of it for one rank, nothing for the other: a rank may run out of positions.
    for merge_repeats, parts in enumerate(((slice(4), slice(4, 8)), (slice(8), slice(0)))):
        torch.manual_seed(0)
        both, alone = Model(merge_repeats), Model(merge_repeats)
        alone.load_state_dict(both.state_dict())
        # The gradient is the mean over ranks: a sum has twice the weight.
        alone.loss.register_full_backward_pre_hook(lambda _, grads: tuple(g / 2 for g in grads))
        parallel = nn.parallel.DistributedDataParallel(both)
        train(parallel, x[parts[rank]], target[parts[rank]], 5)
        train(alone, x, target, 5)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(both.state_dict()[name], value, rtol=1e-5, atol=1e-6)
        assert both.loss.linear.weight.grad.is_sparse
        assert both.loss.linear.bias.grad.is_sparse
    # Each rank its own negatives, by a seed of its own; the weights stay the same everywhere.
    torch.manual_seed(0)
    both = Model(merge_repeats)
    train(nn.parallel.DistributedDataParallel(both), x[:4], target[:4], 100 * rank)
    weights = [torch.empty(50, 6) for _ in range(2)]
    distributed.all_gather(weights, both.loss.linear.weight.detach())
    assert torch.equal(*weights)
    print(float(weights[0].sum()))
    distributed.destroy_process_group()

main()
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_are_one(side_by_side):
    port = str(free_port())
    # Gloo may print a line of its own before.
    first, second = (
        out.splitlines()[-1] for out in side_by_side(PARALLEL, ["0", port], ["1", port])
    )
    assert first == second


def test_the_state_is_that_of_a_linear_layer():
    module = SampledLinearCrossEntropyLoss(3, 7, num_samples=2, bias=True)
    linear = nn.Linear(3, 7)
    assert {f"linear.{name}" for name in linear.state_dict()} == set(module.state_dict())
    module.linear.load_state_dict(linear.state_dict())
    x = torch.randn(2, 3)
    assert torch.equal(module.linear(x), linear(x))
    for bias in (False, True):
        torch.manual_seed(5)
        module = SampledLinearCrossEntropyLoss(3, 7, num_samples=2, bias=bias)
        torch.manual_seed(5)
        linear = nn.Linear(3, 7, bias=bias)
        assert all(map(torch.equal, module.parameters(), linear.parameters()))


# ------------------------------------------------------------------- compiled and exported


class Model(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.below = nn.Linear(4, 4)
        self.loss = SampledLinearCrossEntropyLoss(4, 30, num_samples=6, **options)

    def forward(self, x, target, generator=None):
        return 2 * self.loss(self.below(x).relu(), target, generator=generator)


# A look of dynamo's own at what is above a graph break.
looks = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@looks
@pytest.mark.parametrize("sampler", [UniformSampler(30), LogUniformSampler(30, replacement=False)])
def test_compiled_training_is_the_same(dynamo, sampler):
    torch.manual_seed(0)
    model = Model(sampler=sampler)
    compiled = torch.compile(model, backend="aot_eager")
    x, target = torch.randn(5, 4), torch.arange(5)
    for _ in range(3):  # the last times by what the first one compiled
        found = []
        for each in (model, compiled):
            model.zero_grad()
            loss = each(x, target, seeded())
            loss.backward()
            gradients = [p.grad for p in model.parameters()]
            found.append([loss.detach(), *(g.to_dense() if g.is_sparse else g for g in gradients)])
        assert model.loss.linear.weight.grad.is_sparse
        for actual, expected in zip(*found, strict=True):
            torch.testing.assert_close(actual, expected)
    assert dynamo.utils.counters["stats"]["unique_graphs"] >= 2  # what is above and below the loss


@looks
@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own, and of its tools
def test_training_by_the_default_compiler_is_the_same():
    torch.manual_seed(0)
    model = Model(sampler=UniformSampler(30))
    x, target = torch.randn(5, 4), torch.arange(5)
    losses = []
    for each in (model, torch.compile(model)):
        model.zero_grad()
        loss = each(x, target, seeded())
        loss.backward()
        losses.append([loss.detach(), model.loss.linear.weight.grad.to_dense()])
    for actual, expected in zip(*losses, strict=True):
        torch.testing.assert_close(actual, expected)


@looks
@pytest.mark.usefixtures("dynamo")
def test_a_compiled_function_of_the_user_is_the_same():
    def loss(x, W, target) -> Tensor:
        samples = UniformSampler(30).sample(6, target)
        return sampled_linear_cross_entropy(x.tanh(), W, target, samples) * 2

    x, target = torch.randn(5, 4), torch.arange(5)
    W = torch.randn(30, 4, requires_grad=True)
    values = []
    for function in (loss, torch.compile(loss, backend="aot_eager")):
        torch.manual_seed(0)
        values.append(function(x, W, target))
    torch.testing.assert_close(*values)


@pytest.mark.skipif(torch.__version__ < (2, 14), reason="this torch has its own words")
def test_a_whole_graph_says_why_not(dynamo):
    compiled = torch.compile(Model(), backend="aot_eager", fullgraph=True)
    with pytest.raises(dynamo.exc.Unsupported, match=r"sampled softmax .* has sparse gradients"):
        compiled(torch.randn(5, 4), torch.arange(5))


class Part(nn.Module):
    """One of a module's methods, since only a module can be exported."""

    def __init__(self, model, name) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, *arguments: Tensor):
        return getattr(self.model, self.name)(*arguments)


@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("bias", [False, True])
def test_evaluation_compiles_as_one_graph_and_exports(bias):
    model = SampledLinearCrossEntropyLoss(4, 30, num_samples=6, bias=bias).eval()
    x, target = torch.randn(5, 4), torch.arange(5)
    batch = torch.export.Dim("batch", min=2)
    for name, arguments in (("forward", (x, target)), ("log_prob", (x,)), ("predict", (x,))):
        part = Part(model, name)
        expected = part(*arguments)
        whole = torch.compile(part, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(whole(*arguments), expected)
        shapes = (tuple({0: batch} for _ in arguments),)
        program = torch.export.export(part, arguments, dynamic_shapes=shapes).module()
        torch.testing.assert_close(program(*arguments), expected)
        fewer = [each[:3] for each in arguments]
        torch.testing.assert_close(program(*fewer), part(*fewer))


# --------------------------------------------------------------------- checkpoints, clipping


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("replacement", [False, True])
def test_a_checkpoint_repeats_the_draw_or_says_that_it_can_not(use_reentrant, replacement):
    sampler = UniformSampler(30, replacement=replacement)
    torch.manual_seed(0)
    model = SampledLinearCrossEntropyLoss(4, 30, num_samples=6, sampler=sampler)
    x, target = torch.randn(5, 4, requires_grad=True), torch.arange(5)

    def gradient(function) -> Tensor:
        model.zero_grad()
        function().backward()
        return model.linear.weight.grad.to_dense()

    def kept(**options: object) -> Tensor:
        return checkpoint(lambda x: model(x, target, **options), x, use_reentrant=use_reentrant)

    torch.manual_seed(1)
    expected = gradient(lambda: model(x, target))
    torch.manual_seed(1)
    torch.testing.assert_close(gradient(kept), expected)
    samples = sampler.sample(6, target, generator=seeded())
    torch.testing.assert_close(
        gradient(lambda: kept(samples=samples)),
        gradient(lambda: model(x, target, samples=samples)),
    )
    with pytest.raises(RuntimeError, match=r"a backward pass repeats this draw.* pass samples="):
        gradient(lambda: kept(generator=seeded()))


def test_a_checkpoint_of_a_draw_without_randomness():
    sampler = InBatchSampler(torch.full((30,), 1 / 30))
    model = SampledLinearCrossEntropyLoss(4, 30, num_samples=None, sampler=sampler)
    x, target = torch.randn(5, 4, requires_grad=True), torch.arange(5)
    checkpoint(lambda x: model(x, target, generator=seeded()), x, use_reentrant=False).backward()
    assert model.linear.weight.grad._nnz() == 10


def test_clipping_by_value_is_refused_for_sparse_gradients_and_right_for_others():
    for sparse in (True, False):
        torch.manual_seed(0)
        model = SampledLinearCrossEntropyLoss(4, 30, num_samples=6, sparse=sparse)
        model(torch.randn(5, 4), torch.arange(5)).backward()
        gradient = model.linear.weight.grad.to_dense().clone()
        if sparse:
            with pytest.raises(NotImplementedError, match="Sparse"):
                nn.utils.clip_grad_value_(model.parameters(), 0.01)
        else:
            nn.utils.clip_grad_value_(model.parameters(), 0.01)
            assert torch.equal(model.linear.weight.grad, gradient.clamp(-0.01, 0.01))
    assert float(gradient.abs().max()) > 0.01


# ------------------------------------------------------------------- tables that are computed

TABLES = {
    "normalised": functional.normalize,
    "an item tower": lambda W: torch.tanh(W @ torch.eye(4).flip(0)),
    "a view": operator.itemgetter(slice(None)),
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_computed_needs_dense_gradients(table):
    x, W = torch.randn(5, 4, generator=seeded()), torch.randn(30, 4, generator=seeded(1))
    W.requires_grad_()
    target = torch.arange(5)
    samples = UniformSampler(30, replacement=False).sample(30, target)
    rows = TABLES[table](W)
    with pytest.raises(ValueError, match=r"linear_weight must be a leaf .*Backward0; pass sparse"):
        sampled_linear_cross_entropy(x, rows, target, samples)
    with pytest.raises(ValueError, match=r"linear_bias must be a leaf .* pass sparse=False"):
        sampled_linear_cross_entropy(x, W, target, samples, linear_bias=rows.sum(1))
    loss = sampled_linear_cross_entropy(x, rows, target, samples, sparse=False)
    full = functional.cross_entropy(x @ TABLES[table](W).T, target)
    torch.testing.assert_close(loss, full)
    torch.testing.assert_close(*(torch.autograd.grad(each, W)[0] for each in (loss, full)))
    with torch.no_grad():  # nothing to take a gradient
        torch.testing.assert_close(sampled_linear_cross_entropy(x, rows, target, samples), full)


def test_weight_norm_needs_dense_gradients():
    x, target = torch.randn(5, 4), torch.arange(5)
    for sparse in (True, False):
        model = SampledLinearCrossEntropyLoss(4, 30, num_samples=6, sparse=sparse)
        parametrizations.weight_norm(model.linear)
        if sparse:
            with pytest.raises(ValueError, match=r"linear_weight must be a leaf .* sparse=False"):
                model(x, target)
        else:
            model(x, target).backward()
            assert all(p.grad.any() for p in model.parameters())


def test_a_tied_embedding_takes_both_gradients():
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        embedding = nn.Embedding(30, 4, sparse=sparse)
        model = SampledLinearCrossEntropyLoss(4, 30, num_samples=6, sparse=sparse)
        model.linear.weight = embedding.weight
        ids, target = torch.tensor([3, 3, 4, 5, 6]), torch.tensor([4, 1, 1, 3, 29])
        model(embedding(ids), target, generator=seeded()).backward()
        found.append(embedding.weight.grad.to_dense())
    torch.testing.assert_close(*found)
    assert math.isfinite(float(found[0].sum()))
