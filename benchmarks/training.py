"""Seconds that an epoch of training takes, ours and other ways, and what decides them.

An epoch is 390 batches of 128 of 50,000 images in float32, at each depth of the study. The floor is
the matrix products of the same shapes and nothing else, each by the library that is the faster one
for it here. The images are random: what a product costs does not depend on the values.

python -m benchmarks.training
"""

import contextlib
import functools
import importlib.util
import os
import re
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from timeit import repeat
from typing import Annotated, Any, NamedTuple
from unittest import mock

# Before the libraries read them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no idle processes beside the timed

import matplotlib as mpl

mpl.use("Agg")

import pandas as pd
import psutil
import torch
import torch.nn.functional as F
import typer
from matplotlib import pyplot as plt
from torch import Tensor, nn

from benchmarks import timing
from benchmarks.timing import RESULTS, Step, Timer
from isoparam.budget import layer_sizes, width_for_budget
from isoparam.images.mnist import normalise, pixel_statistics
from isoparam.network import mlp, products
from isoparam.network.bits import STRICT
from isoparam.network.products import product
from isoparam.network.recipe import Precision, Recipe
from isoparam.network.training import Training
from pipeline.commands import available_cores

SHAPE = (784, 10)
BUDGET = 814_090
BUDGETS = [100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000]
BATCH_SIZES = [16, 32, 64, 128, 256, 512, 1024]
MOMENTUM, WEIGHT_DECAY, LEARNING_RATE = 0.9, 5e-4, 0.01

OURS = "isoparam"
BFLOAT16 = "isoparam, bfloat16"
FLOOR = "floor"
AUTOGRAD, COMPILED = "PyTorch in memory", "PyTorch in memory, compiled"
LOADER, LOADER2 = "PyTorch, DataLoader", "PyTorch, DataLoader, 2 workers"
KERAS, KERAS_JIT = "Keras", "Keras, jit"
JAX, JAX_SCAN = "JAX, step by step", "JAX, scan"
SKLEARN = "scikit-learn"


class Problem(NamedTuple):
    """What all contestants work on.

    Attributes:
        images: (N, 28, 28), uint8.
        x: (N, 784), float32, the same normalised.
        labels: (N,), int64.
        sizes: of the layers, input and output included.
        batch_size: images in a batch B.
    """

    images: Tensor
    x: Tensor
    labels: Tensor
    sizes: list[int]
    batch_size: int

    @property
    def batches(self) -> int:
        """Batches of an epoch, which leaves out the images that do not fill one."""
        return len(self.x) // self.batch_size


@functools.cache
def random_images(count: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """As of `Problem`: images, x and labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=generator)
    flat = images.flatten(1)
    labels = torch.randint(SHAPE[1], (count,), generator=generator)
    return images, normalise(flat, *pixel_statistics(flat)).to(device), labels.to(device)


def sizes_of(budget: int, depth: int) -> list[int]:
    """Sizes of the layers of a network on a budget."""
    width = width_for_budget(budget, depth, *SHAPE) if depth else 0
    return layer_sizes(depth, width, *SHAPE)


def isoparam_step(problem: Problem, batches: int, precision: Precision = "float32") -> Step:
    """What stage train runs. The one image of validation is not worth mentioning."""
    count = batches * problem.batch_size if batches < problem.batches else len(problem.x)
    recipe = Recipe(
        sizes=tuple(problem.sizes),
        epochs=1_000_000,  # more than are run
        batch_size=problem.batch_size,
        learning_rate=LEARNING_RATE,
        warmup=0.3,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        precision=precision,
    )
    x, labels = problem.x[:count], problem.labels[:count]
    return Training(x, labels, (x[:1], labels[:1]), recipe, seeds=[0]).run_epoch


def by_torch_mm(problem: Problem, batches: int) -> Step:
    """Ours without oneDNN."""
    return with_other(isoparam_step(problem, batches), products, "_linear", new=None)


def in_passes(problem: Problem, batches: int) -> Step:
    """Ours with a pass of its own over a layer's output for the bias, and one for the ReLU."""

    def apart(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Any:
        result = product(x, weight)
        if bias is not None:
            result.add_(bias)
        return result.relu_() if relu else result

    return with_other(isoparam_step(problem, batches), mlp, "product", new=apart)


def updated_in_passes(problem: Problem, batches: int) -> Step:
    """Ours with a pass over the parameters for each operation of the update."""
    return with_other(isoparam_step(problem, batches), products, "_fused_sgd", new=None)


def with_other(step: Step, module: object, name: str, new: object) -> Step:
    """The step with something of a module replaced."""

    def run() -> object:
        with mock.patch.object(module, name, new):
            return step()

    return run


def floor_step(problem: Problem, batches: int) -> Step:
    """The products, each by oneDNN or by torch.mm into memory that is there: the faster by itself.

    A gradient has the layout of its weight, (o, i).
    """
    B, device = problem.batch_size, problem.x.device
    calls = []
    for index, (i, o) in enumerate(pairwise(problem.sizes)):
        h, weight, delta = (torch.randn(shape, device=device) for shape in ((B, i), (o, i), (B, o)))
        factors = [(h, weight.T), (delta.T, h), (delta, weight)]
        for left, right in factors[: 3 if index else 2]:
            out = torch.empty(len(left), right.shape[1], device=device)
            ways = [
                functools.partial(product, left, right),
                functools.partial(torch.mm, left, right, out=out),
            ]
            calls.append(min(ways, key=lambda way: min(repeat(way, number=5, repeat=9))))

    def step() -> None:
        for _ in range(batches):
            for call in calls:
                call()

    return step


def network(sizes: list[int]) -> nn.Sequential:
    """The network as PyTorch's users write it."""
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    options = {"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY, "fused": True}
    return torch.optim.SGD(model.parameters(), LEARNING_RATE, **options)


def autograd_step(problem: Problem, batches: int, *, compiled: bool = False) -> Step:
    """Tensors in memory, autograd and a fused optimizer."""
    model = network(problem.sizes).to(problem.x.device)
    optimizer = sgd(model)

    def loss_of(x: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(model(x), labels)

    if compiled:
        torch._dynamo.reset()  # noqa: SLF001 (or after some depths it would give up)
        loss_of = torch.compile(loss_of, dynamic=False)
        chosen = slice(problem.batch_size)
        loss_of(problem.x[chosen], problem.labels[chosen]).backward()  # compiles

    def step() -> None:
        order = torch.randperm(len(problem.x)).to(problem.x.device)
        for chosen in islice(order.split(problem.batch_size), batches):
            optimizer.zero_grad()
            loss_of(problem.x[chosen], problem.labels[chosen]).backward()
            optimizer.step()

    return step


def loader_timer(problem: Problem, batches: int, workers: int) -> Timer:
    """The usual way: torchvision's data set and transforms, and a DataLoader."""
    from torch.utils.data import DataLoader, RandomSampler  # noqa: PLC0415
    from torchvision import datasets, transforms  # noqa: PLC0415

    class RandomDigits(datasets.MNIST):
        """MNIST, but for the files."""

        def __init__(self) -> None:
            mean, deviation = pixel_statistics(problem.images.flatten(1))
            normalised = transforms.Normalize((mean / 255,), (deviation / 255,))
            self.transform = transforms.Compose([transforms.ToTensor(), normalised])
            self.target_transform = None
            self.data, self.targets = problem.images, problem.labels

    dataset = RandomDigits()
    loader = DataLoader(
        dataset,
        problem.batch_size,
        sampler=RandomSampler(dataset, num_samples=batches * problem.batch_size),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    model = network(problem.sizes)
    optimizer = sgd(model)

    def step() -> None:
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images.flatten(1)), labels).backward()
            optimizer.step()

    def of_workers() -> float:
        running = getattr(loader._iterator, "_workers", [])  # noqa: SLF001
        return sum(sum(psutil.Process(worker.pid).cpu_times()[:2]) for worker in running)

    next(iter(loader))  # starts the workers
    return timing.timer(step, others=of_workers)


def sklearn_step(problem: Problem, batches: int) -> Step:
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415

    model = MLPClassifier(
        problem.sizes[1:-1],
        solver="sgd",
        batch_size=problem.batch_size,
        learning_rate_init=LEARNING_RATE,
        momentum=MOMENTUM,
        nesterovs_momentum=False,
        alpha=WEIGHT_DECAY,
    )
    count = batches * problem.batch_size
    x, labels = problem.x[:count].numpy(), problem.labels[:count].numpy()
    return lambda: model.partial_fit(x, labels, classes=range(SHAPE[1]))


def keras_step(sizes: list[int], count: int, batch_size: int, jit: bool) -> Step:
    """In a process of its own, on the CPU."""
    import keras  # noqa: PLC0415
    import tensorflow as tf  # noqa: PLC0415

    with contextlib.suppress(RuntimeError):  # at the second depth they are set
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.set_visible_devices([], "GPU")
    hidden = [keras.layers.Dense(width, activation="relu") for width in sizes[1:-1]]
    model = keras.Sequential([keras.Input((sizes[0],)), *hidden, keras.layers.Dense(sizes[-1])])
    model.compile(
        keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    _, x, labels = (tensor.numpy() for tensor in random_images(count, "cpu"))
    model.fit(x[:batch_size], labels[:batch_size], batch_size, verbose=0)  # compiles
    return lambda: model.fit(x, labels, batch_size, epochs=1, verbose=0)


def jax_step(sizes: list[int], count: int, batch_size: int, scan: bool) -> Step:
    """In a process of its own, on the CPU: jit and autograd; a call for each step, or for all."""
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415

    _, x, labels = (jnp.asarray(tensor.numpy()) for tensor in random_images(count, "cpu"))
    layers = [
        (jnp.asarray(torch.randn(i, o).numpy()) * (2 / i) ** 0.5, jnp.zeros(o))
        for i, o in pairwise(sizes)
    ]

    def loss_of(layers: Any, x: Any, labels: Any) -> Any:
        for weight, bias in layers[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        weight, bias = layers[-1]
        log_p = jax.nn.log_softmax(x @ weight + bias)
        return -jnp.take_along_axis(log_p, labels[:, None], 1).mean()

    def train(state: Any, chosen: Any) -> Any:
        layers, velocity = state
        loss, gradient = jax.value_and_grad(loss_of)(layers, x[chosen], labels[chosen])
        velocity = jax.tree.map(
            lambda v, g, w: MOMENTUM * v + g + WEIGHT_DECAY * w, velocity, gradient, layers
        )
        return (jax.tree.map(lambda w, v: w - LEARNING_RATE * v, layers, velocity), velocity), loss

    of_one = jax.jit(train, donate_argnums=0)
    of_all = jax.jit(lambda state, order: jax.lax.scan(train, state, order), donate_argnums=0)
    state = [(layers, jax.tree.map(jnp.zeros_like, layers))]

    def step() -> None:
        batches = count // batch_size
        order = torch.randperm(count)[: batches * batch_size].view(batches, batch_size).numpy()
        if scan:
            state[0], losses = of_all(state[0], order)
        else:
            for chosen in order:
                state[0], losses = of_one(state[0], chosen)
        losses.block_until_ready()

    step()  # compiles
    return step


# Contestants that have a process of their own: what makes them, and its argument.
OF_PROCESSES: dict[str, tuple[Callable[..., Step], bool]] = {
    KERAS: (keras_step, False),
    KERAS_JIT: (keras_step, True),
    JAX: (jax_step, False),
    JAX_SCAN: (jax_step, True),
}
# Contestants of one process that take a whole epoch at a time.
STEPS: dict[str, Callable[[Problem, int], Step]] = {
    FLOOR: floor_step,
    OURS: isoparam_step,
    "isoparam by torch.mm": by_torch_mm,
    "isoparam, bias and ReLU apart": in_passes,
    "isoparam, update in passes": updated_in_passes,
    BFLOAT16: functools.partial(isoparam_step, precision="bfloat16"),
    AUTOGRAD: autograd_step,
    COMPILED: functools.partial(autograd_step, compiled=True),
}
CONTESTANTS = [*STEPS, SKLEARN, LOADER, LOADER2, *OF_PROCESSES]
# A tenth of an epoch is timed of slow contestants.
PARTS = {SKLEARN: 10, LOADER: 10, LOADER2: 10}
# A fifth is timed of parallel processes.
PROCESS_PART = 5


def available(device: str) -> list[str]:
    """Contestants that run here."""
    if device != "cpu":
        return [name for name in STEPS if name != "isoparam by torch.mm"]
    needs = {"torchvision": (LOADER, LOADER2), "sklearn": (SKLEARN,), "keras": (KERAS, KERAS_JIT)}
    needs["jax"] = (JAX, JAX_SCAN)
    left_out = {
        name
        for module, names in needs.items()
        if importlib.util.find_spec(module) is None
        for name in names
    }
    return [name for name in CONTESTANTS if name not in left_out]


def timers_of(
    names: list[str], problem: Problem, processes: dict[str, timing.Process]
) -> dict[str, Timer]:
    """Set up the contestants."""
    synchronize = torch.cuda.synchronize if problem.x.is_cuda else lambda: None
    timers = {}
    for name in names:
        batches = max(1, problem.batches // PARTS.get(name, 1))
        if name in processes:
            count = len(problem.x)
            processes[name].build(problem.sizes, count, problem.batch_size, OF_PROCESSES[name][1])
            timers[name] = processes[name].timed
        elif name in {LOADER, LOADER2}:
            timers[name] = loader_timer(problem, batches, workers=2 * (name == LOADER2))
        else:
            step = sklearn_step if name == SKLEARN else STEPS[name]
            timers[name] = timing.timer(step(problem, batches), synchronize)
    return timers


def measure_epochs(
    names: list[str], problems: dict[int, Problem], rounds: int, seconds: float
) -> pd.DataFrame:
    """A row for each depth and contestant: seconds of an epoch."""
    tables = []
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(timing.process(OF_PROCESSES[name][0]))
            for name in names
            if name in OF_PROCESSES
        }
        for depth, problem in problems.items():
            typer.echo(f"L = {depth} ...", err=True)
            table = timing.measure(timers_of(names, problem, processes), rounds, seconds)
            batches = [max(1, problem.batches // PARTS.get(name, 1)) for name in names]
            table.insert(0, "depth", depth)
            table.insert(3, "batches", batches)
            for column in ("best", "median", "processor"):
                per_batch = table.pop(f"{column}_ms") / 1000 / batches
                table[f"{column}_s"] = per_batch * problem.batches
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def add_ratio(table: pd.DataFrame, clock: str) -> pd.DataFrame:
    """The ratio to ours of the same depth, in one column's seconds."""
    table = table.copy()
    ours = table[table["contestant"] == OURS].set_index("depth")[clock]
    table["to_isoparam"] = table[clock] / table["depth"].map(ours)
    return table


def process_step(sizes: list[int], count: int, batch_size: int, batches: int, threads: int) -> Step:
    """Ours in a process of its own."""
    torch.set_num_threads(threads)
    problem = Problem(*random_images(count, "cpu"), sizes, batch_size)
    return isoparam_step(problem, batches)


def measure_processes(problem: Problem, rounds: int) -> pd.DataFrame:
    """Replicas side by side, threads, and the strict mode: milliseconds of a step of all."""
    cores = available_cores()
    counts = sorted({2**power for power in range(cores.bit_length())} | {cores})
    batches = max(1, problem.batches // PROCESS_PART)
    arguments = (problem.sizes, len(problem.x), problem.batch_size, batches)

    def together(processes: list[timing.Process]) -> Timer:
        def timed() -> tuple[float, float]:
            for process in processes:
                process.start()
            wall, processor = zip(*(process.result() for process in processes), strict=True)
            return max(wall), sum(processor)

        return timed

    with contextlib.ExitStack() as stack:

        def process(environment: dict[str, str] | None = None, threads: int = 1) -> timing.Process:
            started = stack.enter_context(timing.process(process_step, environment))
            started.build(*arguments, threads)
            return started

        replicas = [process() for _ in range(cores)]
        timers = {f"replicas: {count}": together(replicas[:count]) for count in counts}
        if cores > 1:
            timers[f"threads: {cores}"] = process({"OMP_NUM_THREADS": str(cores)}, cores).timed
        timers["strict"] = process(STRICT).timed
        for timed in timers.values():
            timed()
        table = timing.measure(timers, rounds, float("inf"))
    columns = ["best_ms", "median_ms", "processor_ms"]
    table[columns] /= batches
    return table


def measure_sizes(
    count: int, grid: list[tuple[int, int, int]], work: float, rounds: int
) -> pd.DataFrame:
    """Milliseconds of a step and peak memory against budget and batch size.

    Args:
        count: images that lie in memory.
        grid: depths, budgets and batch sizes.
        work: multiplications and additions that are timed at once.
        rounds: how often.
    """
    tables = []
    for depth, budget, batch_size in grid:
        typer.echo(f"L = {depth}, {budget:,} parameters, batch {batch_size} ...", err=True)
        steps = work / (6 * budget * batch_size)
        batches = int(min(max(steps, 2), count // batch_size))
        with timing.process(process_step) as process:
            process.build(sizes_of(budget, depth), count, batch_size, batches, 1)
            process.timed()
            table = timing.measure({OURS: process.timed}, rounds, float("inf"))
            table["peak_mib"] = process.peak_mebibytes()
        table[["best_ms", "median_ms", "processor_ms"]] /= batches
        place = {"depth": depth, "budget": budget, "batch_size": batch_size}
        tables.append(table.drop(columns="contestant").assign(**place))
    return pd.concat(tables, ignore_index=True)


def report(
    epochs: pd.DataFrame,
    processes: pd.DataFrame,
    sizes: pd.DataFrame,
    conditions: str,
    clock: str,
) -> str:
    """What the documentation says of a measurement, in Markdown."""
    depths = sorted(set(epochs["depth"]))
    head = [
        f"| | {' | '.join(f'L = {depth}' for depth in depths)} |",
        f"| --- |{' ---: |' * len(depths)}",
    ]
    lines = [f"{conditions}.", "", "Seconds for an epoch, best / median of the rounds:", "", *head]
    for name, rows in epochs.groupby("contestant", sort=False):
        cells = [
            f"{best:.2f} / {median:.2f}"
            for best, median in zip(rows["best_s"], rows["median_s"], strict=True)
        ]
        lines.append(f"| {_label(name)} | {' | '.join(cells)} |")
    kind = {"best_s": "Best time", "processor_s": "Processor time"}[clock]
    lines += ["", f"{kind} relative to isoparam, and rounds:", ""]
    lines += [f"{head[0]} mean of L > 0 | rounds |", f"{head[1]} ---: | ---: |"]
    for name, rows in epochs.groupby("contestant", sort=False):
        mean = rows[rows["depth"] > 0]["to_isoparam"].mean()
        cells = [f"{ratio:.2f}" for ratio in [*rows["to_isoparam"], mean]]
        rounds = " to ".join(str(n) for n in sorted({rows["rounds"].min(), rows["rounds"].max()}))
        lines.append(f"| {_label(name)} | {' | '.join(cells)} | {rounds} |")
    lines += [
        "",
        "isoparam in parallel processes, in threads, and in strict mode:",
        "",
        "| | best, ms a step | median, ms | processor, ms of all |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in processes.to_dict("records"):
        times = " | ".join(f"{row[f'{c}_ms']:.2f}" for c in ("best", "median", "processor"))
        lines.append(f"| {row['contestant']} | {times} |")
    lines += [
        "",
        "isoparam by number of parameters and batch size:",
        "",
        (
            "| L | parameters | batch | best, ms a step | median, ms | processor, ms "
            "| images a second | peak memory, MiB |"
        ),
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sizes.to_dict("records"):
        times = " | ".join(f"{row[f'{c}_ms']:,.2f}" for c in ("best", "median", "processor"))
        rate = 1000 * row["batch_size"] / row["best_ms"]
        lines.append(
            f"| {row['depth']} | {row['budget']:,} | {row['batch_size']} | {times} "
            f"| {rate:,.0f} | {row['peak_mib']:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def _label(name: str) -> str:
    text = f"**{name}**" if name == OURS else name
    return f"{text}, of 1/{PARTS[name]}" if name in PARTS else text


def draw(epochs: pd.DataFrame, sizes: pd.DataFrame, title: str, clock: str) -> plt.Figure:
    """Seconds of an epoch against depth, and of a step against the number of parameters.

    On the left isoparam beside its floors and its variants, in the middle beside other ways.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 5), layout="constrained")
    middle.sharey(left)
    kind = clock.removesuffix("_s")
    for axes, others in ((left, False), (middle, True)):
        axes.set_prop_cycle(timing.LINES)
        for name, rows in epochs.groupby("contestant", sort=False):
            if name == OURS or name.startswith(("isoparam", "floor")) != others:
                style = timing.OUR_LINE if name == OURS else {}
                axes.plot(rows["depth"], rows[clock], label=name, **style)
        axes.set(yscale="log", xlabel="hidden layers")
        axes.set_xticks(sorted(set(epochs["depth"])))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend(fontsize=8)
    left.set(ylabel=f"seconds for an epoch ({kind} time)")
    left.set_title("isoparam, its floors and variants", fontsize=9)
    middle.set_title("isoparam and other ways", fontsize=9)
    for batch_size, rows in sizes.sort_values("budget").groupby("batch_size"):
        if len(rows) > 1:
            right.plot(rows["budget"], rows[f"{kind}_ms"], "o-", color="C0")
            right.set_title(f"isoparam, batches of {batch_size}", fontsize=9)
    right.set(xscale="log", yscale="log", xlabel="parameters", ylabel="milliseconds for a step")
    right.yaxis.set_major_formatter("{x:g}")
    for axes in (left, middle, right):
        axes.grid(which="major", alpha=0.3)
    figure.suptitle(title, fontsize=9)
    return figure


def main(
    depths: Annotated[list[int] | None, typer.Option(help="hidden layers", min=0)] = None,
    rivals: Annotated[list[str] | None, typer.Option(help="contestants besides isoparam")] = None,
    rounds: Annotated[int, typer.Option(help="largest number of rounds", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="time limit for each contestant and depth")] = 4.0,
    images: Annotated[int, typer.Option(min=128)] = 50_000,
    budget: Annotated[int, typer.Option(help="parameters at each depth")] = BUDGET,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    budgets: Annotated[list[int] | None, typer.Option(help="to compare, at one depth")] = None,
    batch_sizes: Annotated[list[int] | None, typer.Option(help="to compare, at one depth")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="folder to write to, if not that of the processor")
    ] = None,
) -> None:
    """Measure, print the tables, and write three of CSV, README.md and training.png."""
    names = available(device)
    if rivals is not None:
        unknown = sorted(set(rivals) - set(CONTESTANTS))
        if unknown:
            raise typer.BadParameter(f"rivals must be among {CONTESTANTS}, got {unknown}")
        names = [name for name in CONTESTANTS if name in {OURS, *rivals}]
    torch.set_num_threads(1)
    before = timing.load()
    problems = {
        depth: Problem(*random_images(images, device), sizes_of(budget, depth), batch_size)
        for depth in sorted(set(range(9) if depths is None else depths))
    }
    # Processor time leaves out the moments in which other programs had the core. Work on a GPU
    # takes none.
    clock = "best_s" if device != "cpu" else "processor_s"
    with timing.one_core():  # JAX has a thread for each
        epochs = add_ratio(measure_epochs(names, problems, rounds, seconds), clock)
    middle = sorted(problems)[len(problems) // 2]
    processes = measure_processes(problems[middle], rounds)
    grid = [(middle, P, batch_size) for P in budgets or BUDGETS]
    grid += [(middle, budget, B) for B in batch_sizes or BATCH_SIZES]
    sizes = measure_sizes(images, grid, 1e11 * budget / BUDGET, min(rounds, 3))
    after = timing.load()
    where = timing.machine(device)
    folder = re.sub(r"\W+", "-", timing.device_name(device)).lower()
    out = out or RESULTS / "training" / folder
    out.mkdir(parents=True, exist_ok=True)
    tables = []
    for name, table in (("epochs", epochs), ("processes", processes), ("sizes", sizes)):
        path = out / f"{name}.csv"
        table.to_csv(path, index=False, float_format="%.4f")
        tables.append(pd.read_csv(path))  # so that the report is that of the files
    work = f"{images // batch_size} batches of {batch_size}, {budget:,} parameters, float32"
    versions = [
        f", {label} {timing.version(module)}"
        for label, module in (
            ("torchvision", "torchvision"),
            ("TensorFlow", "tensorflow"),
            ("Keras", "keras"),
            ("JAX", "jax"),
            ("scikit-learn", "sklearn"),
        )
        if importlib.util.find_spec(module)
    ]
    command = timing.command("benchmarks.training")
    conditions = (
        f"{work}; {where}{''.join(versions)}; load average {before:.1f} before and {after:.1f} "
        f"after; processes, budgets and batch sizes at L = {middle}; `{command}`"
    )
    text = report(*tables, conditions, clock)
    typer.echo(text)
    (out / "README.md").write_text(text, encoding="utf-8")
    figure = draw(tables[0], tables[2], f"{work}\n{where}", clock)
    figure.savefig(out / "training.png", dpi=150)


if __name__ == "__main__":
    typer.run(main)
