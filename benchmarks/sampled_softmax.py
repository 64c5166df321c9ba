"""Milliseconds of one training step of a linear classifier against its number of classes.

A step is forward, backward and update of a batch, for the sampled softmax, its rivals, and the
floor: the three matrix products, the gather and the scatter that no sampled step can do without.

python -m benchmarks.sampled_softmax
"""

import contextlib
import importlib.util
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

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
    UniformSampler,
    descend,
    keep_freed_blocks,
    sampled_linear_cross_entropy,
)

OURS, FLOOR, FULL, TENSORFLOW = "isoparam", "floor", "full cross-entropy", "TensorFlow"
LEARNING_RATE = 1e-3


class Problem(NamedTuple):
    """What all contestants work on. They share the weight: copies would fill the memory.

    Attributes:
        x: (B, d) features, a leaf that wants its gradient as a network below would.
        weight: (C, d), a leaf.
        samples: Number of sampled classes K.
    """

    x: Tensor
    weight: nn.Parameter
    samples: int

    def targets(self) -> Tensor:
        """Draw the true classes (B,) anew for each step, lest their rows stay in the cache."""
        return torch.randint(len(self.weight), self.x.shape[:1], device=self.x.device)


def isoparam_step(problem: Problem) -> Step:
    x, weight, K = problem
    sampler = UniformSampler(len(weight))
    # The check of the values would have a GPU wait for each step.
    validate = not x.is_cuda

    def step() -> None:
        target = problem.targets()
        samples = sampler.sample(K, target)
        loss = sampled_linear_cross_entropy(x, weight, target, samples, validate=validate)
        loss.backward()
        descend(weight, LEARNING_RATE)
        x.grad = None

    return step


def floor_step(problem: Problem) -> Step:
    """Only what no sampled step can do without, by the fastest products at hand."""
    x, weight, K = problem[0].detach(), problem.weight.detach(), problem.samples
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


def traced_loss(x: Tensor, rows: Tensor, ids: Tensor, target: Tensor, classes: int) -> Tensor:
    """The loss of the importance weighting as a user writes it, for autograd."""
    K = len(ids)
    true = (x * rows[K:]).sum(1, keepdim=True)  # (B, 1)
    sampled = x @ rows[:K].t() - torch.log(torch.tensor(K / classes))  # (B, K)
    sampled = sampled.masked_fill(ids == target[:, None], -torch.inf)
    zeros = torch.zeros_like(target)
    return F.cross_entropy(torch.cat([true, sampled], 1), zeros)


def draw_rows(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    target = problem.targets()
    ids = torch.randint(len(problem.weight), (problem.samples,), device=target.device)
    return ids, target, torch.cat([ids, target])


def gather_step(problem: Problem) -> Step:
    """Gather, differentiate with respect to what was gathered, add by hand."""
    x, weight, _ = problem
    table = weight.detach()

    def step() -> None:
        ids, target, both = draw_rows(problem)
        rows = table.index_select(0, both).requires_grad_()
        traced_loss(x, rows, ids, target, len(table)).backward()
        table.index_add_(0, both, rows.grad, alpha=-LEARNING_RATE)
        x.grad = None

    return step


def embedding_step(problem: Problem) -> Step:
    x, weight, _ = problem
    embedding = nn.Embedding(*weight.shape, _weight=weight, sparse=True)
    optimizer = torch.optim.SGD([embedding.weight], lr=LEARNING_RATE)

    def step() -> None:
        ids, target, both = draw_rows(problem)
        traced_loss(x, embedding(both), ids, target, len(weight)).backward()
        optimizer.step()
        embedding.weight.grad = x.grad = None

    return step


def dense_step(problem: Problem) -> Step:
    x, weight, _ = problem
    optimizer = torch.optim.SGD([weight], lr=LEARNING_RATE)

    def step() -> None:
        ids, target, both = draw_rows(problem)
        traced_loss(x, weight[both], ids, target, len(weight)).backward()
        optimizer.step()
        weight.grad = x.grad = None

    return step


def full_step(problem: Problem) -> Step:
    x, weight, _ = problem
    optimizer = torch.optim.SGD([weight], lr=LEARNING_RATE)

    def step() -> None:
        F.cross_entropy(x @ weight.t(), problem.targets()).backward()
        optimizer.step()
        weight.grad = x.grad = None

    return step


def linear_cross_entropy_step(problem: Problem) -> Step:
    x, weight, _ = problem
    optimizer = torch.optim.SGD([weight], lr=LEARNING_RATE)

    def step() -> None:
        F.linear_cross_entropy(x, weight, problem.targets()).backward()
        optimizer.step()
        weight.grad = x.grad = None

    return step


def tensorflow_step(sizes: tuple[int, int, int, int], threads: int, device: str) -> Step:
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

    @tf.function
    def step() -> object:
        target = tf.random.uniform([B, 1], maxval=C, dtype=tf.int64)
        drawn = tf.random.uniform_candidate_sampler(target, 1, K, unique=False, range_max=C)
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
    "gather + autograd": gather_step,
    "nn.Embedding(sparse)": embedding_step,
    "dense gradient": dense_step,
    FULL: full_step,
    "linear_cross_entropy": linear_cross_entropy_step,
}
CONTESTANTS = [*STEPS, TENSORFLOW]


def available(device: str) -> list[str]:
    """Contestants that run here; `F.linear_cross_entropy` is made for GPUs."""
    left_out = set() if device == "cuda" else {"linear_cross_entropy"}
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
                process.build(sizes, torch.get_num_threads(), problem.x.device.type)
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
    """To the floor, to ours, and to the fewest classes, in one column's milliseconds."""
    table = table.copy()
    by = table.set_index(["classes", "contestant"])[clock]
    rows = list(zip(table["classes"], table["contestant"], table[clock], strict=True))
    fewest = int(table["classes"].min())
    nan = float("nan")
    table["to_floor"] = [ms / by.get((C, FLOOR), nan) for C, _, ms in rows]
    table["to_isoparam"] = [ms / by.get((C, OURS), nan) for C, _, ms in rows]
    table["to_fewest_classes"] = [ms / by.get((fewest, name), nan) for _, name, ms in rows]
    return table


def goals(table: pd.DataFrame) -> list[str]:
    """One line for each goal that the measured contestants decide."""
    rows = table.set_index(["classes", "contestant"])
    lines = []

    def judge(text: str, value: float, limit: float, *, at_least: bool = False) -> None:
        lines.extend(timing.verdict(text, value, limit, at_least=at_least))

    for C in sorted(set(table["classes"])):
        if (C, OURS) not in rows.index:
            continue
        ours = rows.loc[(C, OURS)]
        judge(f"time / floor at C = {C:,}", ours["to_floor"], 1.25)
        if C == 1_000_000 and table["classes"].min() == 10_000:
            judge("time at C = 1,000,000 / at 10,000", ours["to_fewest_classes"], 1.15)
        for name, factor, where in ((TENSORFLOW, 1.25, None), (FULL, 100, 100_000)):
            if (C, name) in rows.index and where in {None, C}:
                ratio = rows.loc[(C, name), "to_isoparam"]
                judge(f"{name} / ours at C = {C:,}", ratio, factor, at_least=True)
    return lines


def draw(table: pd.DataFrame, title: str, clock: str) -> plt.Figure:
    """Milliseconds against classes, both logarithmic, one line for each contestant."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, rows in table.groupby("contestant", sort=False):
        emphasis = {"linewidth": 2.5, "zorder": 3} if name == OURS else {"linewidth": 1.2}
        style = "--" if name == FLOOR else "-"
        color = "0.4" if name == FLOOR else None
        axes.plot(rows["classes"], rows[clock], f"o{style}", color=color, label=name, **emphasis)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="classes",
        ylabel=f"milliseconds for a step ({clock.removesuffix('_ms')} time)",
    )
    axes.set_title(title, fontsize=9)
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def report(table: pd.DataFrame, conditions: str, clock: str) -> str:
    """What the documentation says of a measurement, in Markdown."""
    lines = [
        f"{conditions}. Ratios are of the column `{clock.removesuffix('_ms')}`.",
        "",
        "| classes | step | best, ms | median, ms | processor, ms | × floor | × ours |",  # noqa: RUF001
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in table.to_dict("records"):
        name = f"**{OURS}**" if row["contestant"] == OURS else row["contestant"]
        times = (row[column] for column in ("best_ms", "median_ms", "processor_ms"))
        cells = [f"{ms:,.1f}" if ms < 1000 else f"{ms:,.0f}" for ms in times]
        ratios = [
            "" if math.isnan(ratio) else f"{ratio:,.2f}"
            for ratio in (row["to_floor"], row["to_isoparam"])
        ]
        lines.append(f"| {row['classes']:,} | {name} | {' | '.join([*cells, *ratios])} |")
    return "\n".join([*lines, "", *(f"- {goal}" for goal in goals(table))]) + "\n"


def main(
    classes: Annotated[list[int] | None, typer.Option(help="numbers of classes C")] = None,
    rivals: Annotated[list[str] | None, typer.Option(help="contestants besides ours")] = None,
    rounds: Annotated[int, typer.Option(help="at most so many rounds", min=1)] = 100,
    seconds: Annotated[float, typer.Option(help="for each contestant and C")] = 20.0,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
    features: Annotated[int, typer.Option(min=1)] = 512,
    samples: Annotated[int, typer.Option(min=1)] = 1024,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    out: Annotated[Path, typer.Option(help="folder for what is written")] = RESULTS,
) -> None:
    """Measure, print table and goals, and write sampled_softmax.csv, .md and .png."""
    classes = classes or [10_000, 100_000, 1_000_000] + [10_000_000] * (device == "cuda")
    names = available(device)
    if rivals is not None:
        unknown = sorted(set(rivals) - set(CONTESTANTS))
        if unknown:
            raise typer.BadParameter(f"rivals must be among {list(CONTESTANTS)}, got {unknown}")
        names = [name for name in CONTESTANTS if name in {OURS, *rivals}]
    torch.set_num_threads(threads)
    keep_freed_blocks()
    generator = torch.Generator(device).manual_seed(0)
    tables, loads = [], []
    for C in sorted(classes):
        loads.append(timing.load())
        typer.echo(f"C = {C:,} ...", err=True)
        x = torch.randn(batch_size, features, device=device, generator=generator)
        weight = torch.empty(C, features, device=device)
        weight.normal_(std=features**-0.5, generator=generator)
        problem = Problem(x.requires_grad_(), nn.Parameter(weight), samples)
        with contextlib.ExitStack() as stack:
            table = timing.measure(build(names, problem, stack), rounds, seconds)
        table.insert(0, "classes", C)
        tables.append(table)
        del problem, weight  # before the next one is laid out
    # Processor time leaves out the moments in which other programs had the core. Work on a GPU
    # takes none.
    clock = "best_ms" if device == "cuda" else "processor_ms"
    table = add_ratios(pd.concat(tables, ignore_index=True), clock)
    work = f"Forward + backward + update, B = {batch_size}, d = {features}, K = {samples}, float32"
    where = timing.machine(device)
    if TENSORFLOW in names:
        where += f", TensorFlow {timing.version('tensorflow')}"
    title = f"{work}\n{where}"
    load = f"load average from {min(loads):.1f} to {max(loads):.1f}"
    command = timing.command("benchmarks.sampled_softmax")
    out.mkdir(parents=True, exist_ok=True)
    path = out / "sampled_softmax.csv"
    table.to_csv(path, index=False, float_format="%.4f")
    table = pd.read_csv(path)  # so that the report can be told from the file
    text = report(table, f"{work}; {where}; {load}; `{command}`", clock)
    typer.echo(text)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    draw(table, title, clock).savefig(path.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    typer.run(main)
