"""Milliseconds of one training step of a linear classifier against its number of classes.

A step is forward, backward and update of a batch, for the sampled softmax, its rivals, and the
floor: the three matrix products, the gather and the scatter that no sampled step of distinct ids
can do without. Targets and samples are uniform, or follow Zipf's law as words do.

python -m benchmarks.sampled_softmax
python -m benchmarks.sampled_softmax --law zipf --batch-size 1024 --samples 1024 --samples 8192
"""

import contextlib
import importlib.util
import math
import os
from collections.abc import Callable
from functools import partial
from itertools import product as pairs
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

# Before the libraries read them. One thread: a second one mostly waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib as mpl

mpl.use("Agg")

import pandas as pd
import torch
import torch.nn.functional as F
import typer
from matplotlib import pyplot as plt
from torch import Tensor, nn

from benchmarks import timing
from benchmarks.timing import RESULTS, Step, Timer
from isoparam.network.products import product
from isoparam.sampled_softmax import (
    LogUniformSampler,
    UniformSampler,
    descend,
    keep_freed_blocks,
    sampled_linear_cross_entropy,
)

OURS, FLOOR, FULL, TENSORFLOW = "isoparam", "floor", "full cross-entropy", "TensorFlow"
KEPT, BFLOAT16 = "isoparam, repeats kept", "isoparam, autocast to bfloat16"
ADAPTIVE = "nn.AdaptiveLogSoftmaxWithLoss"
Law = Literal["uniform", "zipf"]
LEARNING_RATE = 1e-3
# The number of frequent words in the descriptions of Debian's packages.
ZIPF_CLASSES = 31_579


class Problem(NamedTuple):
    """What all contestants work on. They share the weight: copies would fill the memory.

    Attributes:
        x: (B, d) features, a leaf that wants its gradient as a network below would.
        weight: (C, d), a leaf.
        samples: Number of sampled classes K.
        law: How targets and samples are distributed.
    """

    x: Tensor
    weight: nn.Parameter
    samples: int
    law: Law = "uniform"

    def targets(self) -> Tensor:
        """Draw the true classes (B,) anew for each step, lest their rows stay in the cache."""
        return self.draw(len(self.x))

    def draw(self, number: int) -> Tensor:
        """Draw classes, as targets or samples, (number,)."""
        nobody = torch.zeros(0, dtype=torch.int64, device=self.x.device)
        return self.sampler(merge=False).sample(number, nobody).ids

    def sampler(self, *, merge: bool) -> UniformSampler | LogUniformSampler:
        """The law of targets and samples."""
        kind = UniformSampler if self.law == "uniform" else LogUniformSampler
        return kind(len(self.weight), merge_repeats=merge)


def isoparam_step(problem: Problem, *, merge: bool | None = None, bfloat16: bool = False) -> Step:
    x, weight, K, law = problem
    sampler = problem.sampler(merge=law == "zipf" if merge is None else merge)
    # The check of the values would have a GPU wait for each step.
    validate = not x.is_cuda

    def step() -> None:
        target = problem.targets()
        samples = sampler.sample(K, target)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            loss = sampled_linear_cross_entropy(x, weight, target, samples, validate=validate)
        loss.backward()
        descend(weight, LEARNING_RATE)
        x.grad = None

    return step


def floor_step(problem: Problem) -> Step:
    """Only what no sampled step can do without, by the fastest products at hand."""
    x, weight, K = problem.x.detach(), problem.weight.detach(), problem.samples
    B, d = x.shape
    rows = x.new_empty(K + B, d)
    zeros = x.new_zeros(K + B, d)

    def step() -> None:
        ids = torch.randint(len(weight), (K + B,), device=x.device)
        torch.index_select(weight, 0, ids, out=rows)
        logits = product(x[None], rows[None, :K].mT)
        product(logits, rows[None, :K])
        product(logits.mT, x[None])
        # Zeros, so that the weight that all share stays as it is. scatter_add_ is the fastest of
        # PyTorch's ways to add rows, all of which add zeros as slowly as other numbers.
        weight.scatter_add_(0, ids[:, None].expand(-1, d), zeros)

    return step


def traced_loss(problem: Problem, rows: Tensor, ids: Tensor, target: Tensor) -> Tensor:
    """The loss of the importance weighting as a user writes it, for autograd."""
    K, classes = len(ids), len(problem.weight)
    if problem.law == "uniform":
        log_counts = torch.log(torch.tensor(K / classes))
    else:
        log_counts = torch.log(K * torch.log1p(1 / (ids + 1.0)) / math.log1p(classes))  # (K,)
    true = (problem.x * rows[K:]).sum(1, keepdim=True)  # (B, 1)
    sampled = problem.x @ rows[:K].t() - log_counts  # (B, K)
    sampled = sampled.masked_fill(ids == target[:, None], -torch.inf)
    zeros = torch.zeros_like(target)
    return F.cross_entropy(torch.cat([true, sampled], 1), zeros)


def draw_rows(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    target = problem.targets()
    ids = problem.draw(problem.samples)
    return ids, target, torch.cat([ids, target])


def gather_step(problem: Problem) -> Step:
    """Gather, differentiate with respect to what was gathered, add by hand."""
    x, weight = problem.x, problem.weight
    table = weight.detach()

    def step() -> None:
        ids, target, both = draw_rows(problem)
        rows = table.index_select(0, both).requires_grad_()
        traced_loss(problem, rows, ids, target).backward()
        table.index_add_(0, both, rows.grad, alpha=-LEARNING_RATE)
        x.grad = None

    return step


def embedding_step(problem: Problem) -> Step:
    x, weight = problem.x, problem.weight
    embedding = nn.Embedding(*weight.shape, _weight=weight, sparse=True)
    optimizer = torch.optim.SGD([embedding.weight], lr=LEARNING_RATE)

    def step() -> None:
        ids, target, both = draw_rows(problem)
        traced_loss(problem, embedding(both), ids, target).backward()
        optimizer.step()
        embedding.weight.grad = x.grad = None

    return step


def dense_step(problem: Problem) -> Step:
    x, weight = problem.x, problem.weight
    optimizer = torch.optim.SGD([weight], lr=LEARNING_RATE)

    def step() -> None:
        ids, target, both = draw_rows(problem)
        traced_loss(problem, weight[both], ids, target).backward()
        optimizer.step()
        weight.grad = x.grad = None

    return step


def full_step(problem: Problem) -> Step:
    x, weight = problem.x, problem.weight
    optimizer = torch.optim.SGD([weight], lr=LEARNING_RATE)

    def step() -> None:
        F.cross_entropy(x @ weight.t(), problem.targets()).backward()
        optimizer.step()
        weight.grad = x.grad = None

    return step


def linear_cross_entropy_step(problem: Problem) -> Step:
    x, weight = problem.x, problem.weight
    optimizer = torch.optim.SGD([weight], lr=LEARNING_RATE)

    def step() -> None:
        F.linear_cross_entropy(x, weight, problem.targets()).backward()
        optimizer.step()
        weight.grad = x.grad = None

    return step


def adaptive_step(problem: Problem) -> Step:
    """The rival for skewed classes: exact, with fewer features for the rare ones.

    It has a third of the parameters, which are its own.
    """
    x, C = problem.x, len(problem.weight)
    loss = nn.AdaptiveLogSoftmaxWithLoss(x.shape[1], C, [C // 16, C // 4], device=x.device)
    optimizer = torch.optim.SGD(loss.parameters(), lr=LEARNING_RATE)

    def step() -> None:
        loss(x, problem.targets()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        x.grad = None

    return step


def tensorflow_step(sizes: tuple[int, int, int, int], law: Law, threads: int, device: str) -> Step:
    """TensorFlow's own sampler and loss, compiled to a graph, with its fastest sparse update."""
    import tensorflow as tf  # noqa: PLC0415

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for gpu in tf.config.list_physical_devices("GPU"):
        # Or it would take the whole memory from PyTorch.
        tf.config.experimental.set_memory_growth(gpu, enable=True)
    B, C, d, K = sizes
    place = tf.device("/GPU:0" if device == "cuda" else "/CPU:0")
    with place:
        x = tf.Variable(tf.random.normal([B, d]))
        # Zeros cost as much to multiply as other numbers, and half the memory to lay out.
        weight = tf.Variable(tf.zeros([C, d]))
        bias = tf.zeros([C])

    candidates = {
        "uniform": tf.random.uniform_candidate_sampler,
        "zipf": tf.random.log_uniform_candidate_sampler,
    }[law]

    @tf.function
    def step() -> object:
        if law == "uniform":
            target = tf.random.uniform([B, 1], maxval=C, dtype=tf.int64)
        else:
            u = tf.random.uniform([B, 1])
            target = tf.cast(tf.exp(u * math.log1p(C)), tf.int64) - 1
            target = tf.clip_by_value(target, 0, C - 1)
        drawn = candidates(target, 1, K, unique=False, range_max=C)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sampled_softmax_loss(weight, bias, target, x, K, C, sampled_values=drawn)
            )
        grad_x, grad = tape.gradient(loss, [x, weight])
        grad_values = tf.convert_to_tensor(grad.values)
        weight.scatter_sub(tf.IndexedSlices(LEARNING_RATE * grad_values, grad.indices))
        return grad_x

    def run() -> None:
        with place:
            step().numpy()  # waits for the result

    return run


STEPS: dict[str, Callable[[Problem], Step]] = {
    FLOOR: floor_step,
    OURS: isoparam_step,
    BFLOAT16: partial(isoparam_step, bfloat16=True),
    KEPT: partial(isoparam_step, merge=False),
    "gather + autograd": gather_step,
    "nn.Embedding(sparse)": embedding_step,
    "dense gradient": dense_step,
    FULL: full_step,
    "linear_cross_entropy": linear_cross_entropy_step,
    ADAPTIVE: adaptive_step,
}
CONTESTANTS = [*STEPS, TENSORFLOW]
# Contestants of one law alone. Where ids repeat, ours need not multiply by all of them.
ONLY = {FLOOR: "uniform", KEPT: "zipf", ADAPTIVE: "zipf"}


def available(device: str, law: Law) -> list[str]:
    """Contestants that run here; `F.linear_cross_entropy` is made for GPUs."""
    left_out = {name for name, of in ONLY.items() if of != law}
    if device != "cuda":
        left_out.add("linear_cross_entropy")
    if not hasattr(F, "linear_cross_entropy"):
        left_out.add("linear_cross_entropy")
    if importlib.util.find_spec("tensorflow") is None:
        left_out.add(TENSORFLOW)
    return [name for name in CONTESTANTS if name not in left_out]


def build(names: list[str], problem: Problem, stack: contextlib.ExitStack) -> dict[str, Timer]:
    """Set up the contestants and run each once, without those that the memory does not hold."""
    synchronize = torch.cuda.synchronize if problem.x.is_cuda else lambda: None
    timers = {}
    for name in names:
        try:
            if name == TENSORFLOW:
                process = stack.enter_context(timing.process(tensorflow_step))
                sizes = (len(problem.x), *problem.weight.shape, problem.samples)
                process.build(sizes, problem.law, torch.get_num_threads(), problem.x.device.type)
                timed = process.timed
            else:
                timed = timing.timer(STEPS[name](problem), synchronize)
            timed()
        except torch.OutOfMemoryError:
            problem.weight.grad = problem.x.grad = None
            typer.echo(f"{name}: out of memory at C = {len(problem.weight):,}", err=True)
        else:
            timers[name] = timed
    return timers


def add_ratios(table: pd.DataFrame, clock: str) -> pd.DataFrame:
    """To the floor and to ours, in one column's milliseconds."""
    table = table.copy()
    by = table.set_index(["classes", "samples", "contestant"])[clock]
    rows = list(zip(table["classes"], table["samples"], table[clock], strict=True))
    for column, name in (("to_floor", FLOOR), ("to_isoparam", OURS)):
        table[column] = [ms / by.get((C, K, name), math.nan) for C, K, ms in rows]
    return table


def draw(table: pd.DataFrame, title: str, clock: str) -> plt.Figure:
    """Times as ratios to the floor's against classes, one line for each contestant.

    On the left those below twice the floor, on the right the others, on a logarithmic scale.
    """
    base = FLOOR if FLOOR in set(table["contestant"]) else OURS
    least = table["classes"].map(table[table["contestant"] == base].set_index("classes")[clock])
    table = table.assign(ratio=table[clock] / least)
    far = table.groupby("contestant")["ratio"].transform("max") > 2
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
    ours = table["contestant"] == OURS
    styles = dict(zip(table["contestant"][~ours].unique(), timing.LINES, strict=False))
    styles[OURS] = timing.OUR_LINE
    for axes, shown in zip(panels, (table[~far], table[far | ours]), strict=True):
        for name, rows in shown.sort_values("classes").groupby("contestant", sort=False):
            axes.plot(rows["classes"], rows["ratio"], label=name, **styles[name])
        axes.set(xscale="log", xlabel="classes")
        axes.grid(which="major", alpha=0.3)
    lines = {line.get_label(): line for axes in panels for line in axes.lines}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=4, fontsize=8)
    panels[0].set_ylabel(f"{clock.removesuffix('_ms')} time of a step, ratio to {base}")
    panels[1].set_yscale("log")
    panels[1].yaxis.set_major_formatter("{x:,g}")
    figure.suptitle(title, fontsize=9)
    return figure


def report(table: pd.DataFrame, conditions: str, clock: str) -> str:
    """What the documentation says of a measurement, in Markdown."""
    lines = [
        f"{conditions}. Ratios are of the column `{clock.removesuffix('_ms')}`.",
        "",
        "| classes | K | step | best, ms | median, ms | processor, ms | × floor | × ours |",  # noqa: RUF001
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table.to_dict("records"):
        name = f"**{OURS}**" if row["contestant"] == OURS else row["contestant"]
        times = (row[column] for column in ("best_ms", "median_ms", "processor_ms"))
        cells = [f"{ms:,.1f}" if ms < 1000 else f"{ms:,.0f}" for ms in times]
        ratios = [
            "" if math.isnan(ratio) else f"{ratio:,.2f}"
            for ratio in (row["to_floor"], row["to_isoparam"])
        ]
        sizes = f"{row['classes']:,} | {row['samples']:,}"
        lines.append(f"| {sizes} | {name} | {' | '.join([*cells, *ratios])} |")
    return "\n".join(lines) + "\n"


def main(
    classes: Annotated[list[int] | None, typer.Option(help="numbers of classes C")] = None,
    rivals: Annotated[list[str] | None, typer.Option(help="contestants besides isoparam")] = None,
    rounds: Annotated[int, typer.Option(help="largest number of rounds", min=1)] = 100,
    seconds: Annotated[float, typer.Option(help="time limit for each contestant and C")] = 20.0,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
    features: Annotated[int, typer.Option(min=1)] = 512,
    samples: Annotated[list[int] | None, typer.Option(help="numbers of samples K")] = None,
    law: Annotated[Law, typer.Option(help="distribution of targets and samples")] = "uniform",
    threads: Annotated[int, typer.Option(min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    out: Annotated[Path, typer.Option(help="folder to write to")] = RESULTS,
) -> None:
    """Measure, print the table, and write sampled_softmax.csv and .md, or sampled_softmax_zipf.*.

    Where classes are uniform, draw a figure too.
    """
    if classes is None:
        few, many = [10_000, 100_000, 1_000_000], [10_000_000] * (device == "cuda")
        classes = few + many if law == "uniform" else [ZIPF_CLASSES]
    samples = samples or [1024]
    names = available(device, law)
    if rivals is not None:
        unknown = sorted(set(rivals) - set(names))
        if unknown:
            raise typer.BadParameter(f"rivals must be among {names}, got {unknown}")
        names = [name for name in names if name in {OURS, *rivals}]
    torch.set_num_threads(threads)
    keep_freed_blocks()
    generator = torch.Generator(device).manual_seed(0)
    tables, loads = [], []
    for C, K in pairs(sorted(classes), sorted(samples)):
        loads.append(timing.load())
        typer.echo(f"C = {C:,}, K = {K:,} ...", err=True)
        x = torch.randn(batch_size, features, device=device, generator=generator)
        weight = torch.empty(C, features, device=device)
        weight.normal_(std=features**-0.5, generator=generator)
        problem = Problem(x.requires_grad_(), nn.Parameter(weight), K, law)
        with contextlib.ExitStack() as stack:
            table = timing.measure(build(names, problem, stack), rounds, seconds)
        table.insert(0, "classes", C)
        table.insert(1, "samples", K)
        tables.append(table)
        del problem, weight  # before the next one is laid out
    # Processor time leaves out the moments in which other programs had the core. Work on a GPU
    # takes none.
    clock = "best_ms" if device == "cuda" else "processor_ms"
    table = add_ratios(pd.concat(tables, ignore_index=True), clock)
    work = f"Forward + backward + update, B = {batch_size}, d = {features}, float32"
    if law == "zipf":
        work += ", targets and samples log-uniform"
    where = timing.machine(device)
    if TENSORFLOW in names:
        where += f", TensorFlow {timing.version('tensorflow')}"
    load = f"load average from {min(loads):.1f} to {max(loads):.1f}"
    conditions = f"{work}; {where}; {load}; `{timing.command('benchmarks.sampled_softmax')}`"
    path = out / f"sampled_softmax{'_zipf' if law == 'zipf' else ''}.csv"
    timing.record(path, table, partial(report, conditions=conditions, clock=clock))
    if law == "uniform":
        table = table[table["samples"] == samples[0]]
        draw(table, f"{work}, K = {samples[0]}\n{where}", clock).savefig(
            path.with_suffix(".png"), dpi=150
        )


if __name__ == "__main__":
    typer.run(main)
