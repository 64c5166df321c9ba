"""What stands between marker lines in README.md and docs/, written from what is recorded."""

import re
import subprocess
import sys
from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Any

from isoparam.budget import count_parameters, ideal_width, width_for_budget
from isoparam.images.datasets import sizes_of
from pipeline import files, parameters
from tools import findings

DOCUMENTS = (
    Path("README.md"),
    Path("docs/homework.md"),
    Path("docs/results.md"),
    Path("docs/diagnostics.md"),
    Path("docs/sampled_softmax.md"),
    Path("docs/performance.md"),
    Path("docs/reproducibility.md"),
    Path("docs/model_card.md"),
)
METRICS = Path("metrics")
DIAGNOSTICS = Path("plots/diagnostics")
RECORDS = Path("benchmarks/results")
BLOCK = re.compile(r"(<!-- (\S+): begin -->\n).*?(<!-- \2: end -->\n)", re.DOTALL)


def main() -> None:
    """Write what lies between marker lines in the documents anew."""
    for path in DOCUMENTS:
        old = path.read_text(encoding="utf-8")
        new = fill(old)
        if new != old:
            with files.replacing(path) as partial:
                partial.write_text(new, encoding="utf-8")


def fill(text: str) -> str:
    """Replace each block of a document by what the metrics say now."""

    def block(match: re.Match[str]) -> str:
        if match[2] not in BLOCKS:
            raise ValueError(f"there is no block {match[2]!r}; there are {', '.join(BLOCKS)}")
        return f"{match[1]}{BLOCKS[match[2]]()}\n{match[3]}"

    return BLOCK.sub(block, text)


def widths() -> str:
    """The table of widths at the homework's depths, by the formula and as chosen."""
    params = parameters.read_params()
    sizes = sizes_of(params.data.dataset, params.data.own)
    lines = [
        "| $L$ | real-valued width | width | parameters | deviation | deviation, % |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for depth in range(1, 9):
        width = width_for_budget(params.budget, depth, *sizes)
        count = count_parameters(depth, width, *sizes)
        deviation = count - params.budget
        lines.append(
            f"| {depth} | {ideal_width(params.budget, depth, *sizes):.3f} | {width} "
            f"| {count:,} | {deviation:+,} | {100 * deviation / params.budget:+.2f} |"
        )
    return "\n".join(lines)


def metrics_show() -> str:
    """What `dvc metrics show` prints."""
    shown = subprocess.run(
        [sys.executable, "-m", "dvc", "metrics", "show", "--precision", "4"],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = [line.rstrip() for line in shown.stdout.strip().splitlines()]
    return "\n".join(["```console", "$ dvc metrics show --precision 4", *lines, "```"])


def sampled() -> str:
    """The table of the linear classifiers trained on sampled classes."""
    lines = [
        (
            "| training | K | learning rate | test accuracy, % "
            "| full negative log-likelihood, nats |"
        ),
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for m in files.read_json(METRICS / "sampled.json").values():
        loss = f"{m['test_loss']:.4f}"
        if m["test_loss_hi"] is not None:
            loss += f" ± {(m['test_loss_hi'] - m['test_loss_lo']) / 2:.4f}"
        ends = {"test_lo": m["test_accuracy_lo"], "test_hi": m["test_accuracy_hi"]}
        lines.append(
            f"| {training_of(m)} | {m['samples'] or ''} | {m['learning_rate']:g} "
            f"| {findings.interval(m | ends)} | {loss} |"
        )
    return "\n".join(lines)


def instance() -> str:
    """The table of the trainings on as many classes as images."""
    lines = [
        (
            "| images drawn | training | K | epochs | learning rate "
            "| top-1 on fresh views, % | full negative log-likelihood, nats |"
        ),
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    laws = {"uniform": "once an epoch", "zipf": "by Zipf's law"}
    lines += [
        f"| {laws[m['images']]} | {training_of(m)} | {m['samples'] or ''} | {m['epochs']} "
        f"| {m['learning_rate']:g} | {100 * m['test_accuracy']:.1f} | {m['test_loss']:.2f} |"
        for m in files.read_json(METRICS / "instance.json").values()
    ]
    return "\n".join(lines)


def diagnostics() -> str:
    """The table of what the networks of each depth do beyond their accuracy."""
    summary, calibration, layers = (
        files.read_csv(DIAGNOSTICS / f"{name}.csv", ["model"])
        for name in ("summary", "calibration", "layers")
    )
    lines = [
        (
            "| hidden layers | NLL, nats | ECE, % | confidence less accuracy, % "
            "| images that all seeds get wrong | gradients, first by last layer: initial | trained "
            "| cosine: initial | trained |"
        ),
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for m in summary.to_dict("records"):
        bins = calibration[calibration["model"] == m["model"]]
        excess = (bins["count"] * (bins["confidence"] - bins["accuracy"])).sum()
        ratios, cosines = [], []
        for state in ("initial", "trained"):
            rows = layers[(layers["model"] == m["model"]) & (layers["state"] == state)]
            norms = rows["gradient_norm"]
            ratios.append(f"{norms.iloc[0] / norms.iloc[-1]:.2f}" if m["depth"] else "")
            cosines.append(f"{rows['similarity'].iloc[-1]:.2f}")
        lines.append(
            f"| {m['depth']} | {m['test_loss']:.4f} | {100 * m['ece']:.2f} "
            f"| {100 * excess / bins['count'].sum():+.2f} | {m['wrong_by_all_seeds']} "
            f"| {' | '.join(ratios + cosines)} |"
        )
    return "\n".join(lines)


def benchmark() -> str:
    """What the benchmark of the sampled softmax wrote."""
    return (RECORDS / "sampled_softmax.md").read_text(encoding="utf-8").rstrip()


def training() -> str:
    """What the benchmark of the training wrote."""
    return (RECORDS / "training.md").read_text(encoding="utf-8").rstrip()


def repro() -> str:
    """What the benchmark of a whole run wrote."""
    return (RECORDS / "repro.md").read_text(encoding="utf-8").rstrip()


def scale() -> str:
    """What the benchmark says that DVC itself costs."""
    return (RECORDS / "scale.md").read_text(encoding="utf-8").rstrip()


def tuning() -> str:
    """The table of the learning rates tried with as many classes as images."""
    columns = ("run", "epochs", "class_rate", "learning_rate", "loss", "accuracy")
    table = files.read_csv(RECORDS / "instance_tuning.csv", columns)
    rates = sorted(set(table["learning_rate"]))
    lines = [
        f"| run | epochs | `class_rate` | {' | '.join(f'{rate:g}' for rate in rates)} |",
        f"| --- | ---: | ---: |{' ---: |' * len(rates)}",
    ]
    for (run, epochs, class_rate), rows in table.groupby(list(columns[:3]), sort=False):
        cells = dict.fromkeys(rates, "")
        ranked = rows.sort_values(["accuracy", "loss"], ascending=[False, True])
        best = ranked["learning_rate"].iloc[0]
        for rate, loss, accuracy in zip(*(rows[name] for name in columns[3:]), strict=True):
            cell = "diverged" if isnan(loss) else f"{loss:.2f}, {100 * accuracy:.1f} %"
            cells[rate] = f"**{cell}**" if rate == best and len(rows) > 1 else cell
        lines.append(f"| {run} | {epochs} | {class_rate:g} | {' | '.join(cells.values())} |")
    return "\n".join(lines)


def seconds() -> str:
    """The table of processor seconds of trainings on as many classes as images."""
    columns = ("run", "epochs", "processor_s", "test_loss", "test_accuracy")
    table = files.read_csv(RECORDS / "instance.csv", columns)
    lines = [
        (
            "| run | epochs | processor, s | top-1 on fresh views, % "
            "| full negative log-likelihood, nats |"
        ),
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {run} | {epochs} | {processor:.0f} | {100 * accuracy:.1f} | {loss:.2f} |"
        for run, epochs, processor, loss, accuracy in zip(*map(table.get, columns), strict=True)
    ]
    return "\n".join(lines)


def emulated() -> str:
    """The table of the hashes on this processor and on emulated ones."""
    columns = ("processor", "settings", "model", "hash")
    table = files.read_csv(RECORDS / "emulated.csv", columns)
    models = list(dict.fromkeys(table["model"]))
    lines = [
        f"| processor | settings | {' | '.join(models)} | as strict mode on the first |",
        f"| --- | --- |{' --- |' * len(models)} :---: |",
    ]
    expected: list[str] | None = None
    for (processor, settings), rows in table.groupby(["processor", "settings"], sort=False):
        hashes = rows["hash"].tolist()
        expected = expected or hashes
        shown = " | ".join(f"`{digest[:8]}`" for digest in hashes)
        same = "yes" if hashes == expected else "no"
        lines.append(f"| {processor} | {settings} | {shown} | {same} |")
    return "\n".join(lines)


def strict_cost() -> str:
    """The table of what a step takes in both modes."""
    columns = ("model", "settings", "milliseconds")
    table = files.read_csv(RECORDS / "strict_cost.csv", columns)
    lines = ["| | default, ms | strict, ms | ratio |", "| --- | ---: | ---: | ---: |"]
    for model, row in table.pivot_table("milliseconds", "model", "settings").iterrows():
        default, strict = row["default mode"], row["strict mode"]
        lines.append(f"| {model} | {default:.2f} | {strict:.2f} | {strict / default:.2f} |")
    return "\n".join(lines)


BLOCKS: dict[str, Callable[[], str]] = {
    "claim": findings.claim,
    "results": findings.results,
    "differences": findings.differences,
    "best": findings.best,
    "trend": findings.trend,
    "learning-rates": findings.learning_rates,
    "plain-recipes": findings.plain_recipes,
    "regularisation": findings.regularisation,
    "regularised": findings.regularised,
    "bfloat16": findings.bfloat16,
    "budgets": findings.budgets,
    "widths": widths,
    "metrics-show": metrics_show,
    "sampled": sampled,
    "instance": instance,
    "diagnostics": diagnostics,
    "benchmark": benchmark,
    "training": training,
    "repro": repro,
    "scale": scale,
    "tuning": tuning,
    "seconds": seconds,
    "emulated": emulated,
    "strict-cost": strict_cost,
}


def training_of(m: dict[str, Any]) -> str:
    """The way of a training in words."""
    names = {
        "full": "full softmax",
        "importance": "sampled, importance weights",
        "stated": "sampled, stated weights",
        "none": "sampled, no correction",
    }
    return names[m["weighting"]]
