"""Writes the text between marker lines in README.md and docs/ from the recorded results."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import hypot
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy.special import stdtrit

from isoparam.budget import count_parameters, ideal_width, width_for_budget
from isoparam.results.statistics import described
from pipeline import commands, files, parameters
from tools import findings
from tools.findings import markdown, percent

DOCUMENTS = ("README.md", "docs/*.md", "studies/*/README.md")
DIAGNOSTICS = Path("plots/diagnostics")
RECORDS = Path("benchmarks/results")
TRAINING = RECORDS / "training/amd-epyc-family-25-model-17"
RATES = Path("tuning/learning_rates.csv")
# What benchmarks/recipes.py changes.
CHANGED = ("epochs", "weight_decay", "warmup")
BLOCK = re.compile(r"(<!-- (\S+): begin -->\n).*?(<!-- \2: end -->\n)", re.DOTALL)


def main() -> None:
    """Rewrite the generated blocks of the documents."""
    for path in pages(Path()):
        old = path.read_text(encoding="utf-8")
        new = fill(old)
        if new != old:
            files.write(path, new)


def pages(root: Path) -> list[Path]:
    """The documents that have blocks."""
    found = [path for pattern in DOCUMENTS for path in sorted(root.glob(pattern))]
    return [path for path in found if BLOCK.search(path.read_text(encoding="utf-8"))]


def fill(text: str) -> str:
    """Replace each block of a document by its current text."""

    def block(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        if name not in BLOCKS:
            raise ValueError(f"there is no block {name!r}; there are {', '.join(BLOCKS)}")
        return f"{begin}{BLOCKS[name]()}\n{end}"

    return BLOCK.sub(block, text)


def widths() -> str:
    """The table of widths at the homework's depths, by the formula and as chosen."""
    params = parameters.read_params()
    sizes = params.data.sizes
    rows = []
    for depth in range(1, 9):
        width = width_for_budget(params.budget, depth, *sizes)
        count = count_parameters(depth, width, *sizes)
        off = count - params.budget
        rows.append(
            f"{depth} | {ideal_width(params.budget, depth, *sizes):.3f} | {width} | {count:,} | "
            f"{off:+,} | {100 * off / params.budget:+.2f}"
        )
    heads = "$L$: | real-valued width: | width: | parameters: | off the budget by: | in %:"
    return markdown(heads, rows)


def metrics_show() -> str:
    """What `dvc metrics show` prints."""
    command = ["metrics", "show", "--precision", "4", "metrics/summary.json"]
    lines = [line.rstrip() for line in commands.dvc(*command).strip().splitlines()]
    return "\n".join(["```console", f"$ dvc {' '.join(command)}", *lines, "```"])


def learning_rates() -> str:
    """The table of the learning rates that were tried, those chosen in bold, and slopes below."""
    table = files.read_csv(RATES, ("model", "learning_rate", "accuracy", "chosen"))
    cells = table["accuracy"].map(percent).mask(table["accuracy"].isna(), "diverged")
    table["cell"] = cells.mask(table["chosen"], "**" + cells + "**")
    slopes = pd.DataFrame(
        {"model": "slope", "learning_rate": rate, "cell": str(slope)}
        for rate, slope in _slopes().items()
    )
    table = pd.concat([table, slopes]).sort_values("learning_rate", kind="stable")
    table["head"] = [f"{rate:g}:" for rate in table["learning_rate"]]
    return _by_head(table.rename(columns={"model": "contestant"}), "")


def trend_by_rate() -> str:
    """What the slopes say about the trend, in sentences."""
    slopes = _slopes().items()
    found = [f"{slope.mean:+.3f} points at {rate:g}" for rate, slope in slopes if slope.differs]
    rest = [f"{rate:g}" for rate, slope in slopes if not slope.differs]
    parts = [
        "each additional hidden layer changes validation accuracy by " + findings.listed(found)
        if found
        else "",
        f"there is no significant trend at {findings.listed(rest)}" if rest else "",
    ]
    return f"At equal learning rates, {'; '.join(filter(None, parts))}."


class _Estimate(NamedTuple):
    """Of a difference or a slope, in points, and its error."""

    mean: float
    standard_error: float
    degrees: int

    @property
    def half(self) -> float:
        """Half the 95 % interval, by Student's t."""
        return float(stdtrit(self.degrees, 0.975)) * self.standard_error

    @property
    def differs(self) -> bool:
        """Whether 0 is outside the interval."""
        return abs(self.mean) > self.half

    def __str__(self) -> str:
        """Both, as the pages show them."""
        return f"{self.mean:+z.3f} ± {self.half:.3f}"

    def minus(self, other: "_Estimate") -> "_Estimate":
        """The difference of two estimates from different trainings."""
        error = hypot(self.standard_error, other.standard_error)
        return _Estimate(self.mean - other.mean, error, self.degrees + other.degrees)


def _slopes() -> dict[float, _Estimate]:
    """The slope at each rate that two depths or more can bear."""
    table = files.read_csv(RATES, ("depth", "learning_rate", "accuracy"))
    table = table[table["depth"] > 0].dropna(subset="accuracy")
    return {
        float(str(rate)): _slope(rows, "accuracy", "accuracy_sd")
        for rate, rows in table.groupby("learning_rate")
        if len(rows) > 1
    }


def _slope(table: pd.DataFrame, mean: str, deviation: str) -> _Estimate:
    centred = table["depth"] - table["depth"].mean()
    weights = 100 * centred / (centred**2).sum()
    error = ((weights * table[deviation]) ** 2 / table["seeds"]).sum() ** 0.5
    return _Estimate((weights * table[mean]).sum(), error, (table["seeds"] - 1).sum())


def recipes() -> str:
    """How a change of the recipe changes validation accuracy at some depths."""
    table = files.read_csv(RECORDS / "recipes.csv", ("model", "seed", *CHANGED))
    train = parameters.read_params().train
    heads, variances = ["", "the study's, %:"], []
    lines: list[str] = []
    for name, rows in table.groupby("model"):
        tuned = files.read_csv(RATES.parent / f"{name}.csv", ("learning_rate", "seed"))
        rate = parameters.learning_rate_of(str(name))
        same = (tuned["learning_rate"] == rate) & tuned["seed"].isin(rows["seed"])
        studied = tuned.loc[same, "validation_accuracy"]
        cells = [str(name), percent(studied.mean())]
        variances.append(studied.var())
        for column in CHANGED:
            for value, changed in rows.groupby(column)["validation_accuracy"]:
                if value != getattr(train, column):
                    cells.append(f"{100 * (changed.mean() - studied.mean()):+.2f}")
                    heads += [f"{column.replace('_', ' ')} {value:g}:"] * (not lines)
                    variances.append(changed.var())
        lines.append(" | ".join(cells))
    error = 100 * (2 * sum(variances) / len(variances) / table["seed"].nunique()) ** 0.5
    return (
        f"{markdown(' | '.join(heads), lines)}\n\n"
        f"By the spread of the seeds, a difference has a standard error of {error:.2f} points."
    )


def skips() -> str:
    """Validation accuracies with identity skips beside the study's, and what the slopes say."""
    table = files.read_csv(RECORDS / "skips.csv", ("model", "learning_rate", "seed"))
    trained = table[table["seed"].isin(parameters.read_params().seeds)]
    found, rates, plain = {}, {}, {}
    for name, rows in trained.groupby("model"):
        found[str(name)] = described(
            "val_accuracy", rows["validation_accuracy"].tolist(), prefix="val"
        ) | {"depth": rows["depth"].iloc[0], "seeds": len(rows)}
        rates[str(name)] = rows["learning_rate"].iloc[0]
        plain[str(name)] = files.read_json(findings.METRICS / f"depths/{name}.json")
    gains = [_of_model(found[name]).minus(_of_model(plain[name])) for name in found]
    lines = {
        "learning rate with skips": [f"{rate:g}" for rate in rates.values()],
        "with skips": [findings.interval(m, "val_accuracy", "val") for m in found.values()],
        "without": [findings.interval(m, "val_accuracy", "val") for m in plain.values()],
        "difference": [f"{gain.mean:+z.2f} ± {gain.half:.2f}" for gain in gains],
    }
    heads = " | ".join(["", *(f"{name}:" for name in found)])
    rows = (" | ".join([name, *cells]) for name, cells in lines.items())
    return f"{markdown(heads, rows)}\n\n{_cause(found.values(), plain.values(), gains[-1])}"


def _of_model(metrics: Mapping[str, Any]) -> _Estimate:
    seeds = metrics["seeds"]
    return _Estimate(100 * metrics["val_accuracy"], 100 * metrics["val_sd"] / seeds**0.5, seeds - 1)


def _cause(found: Iterable[Any], plain: Iterable[Any], deepest: _Estimate) -> str:
    """Why deep networks lose: the slopes with skips and without, and the gain of the deepest."""
    one, other = (_slope(pd.DataFrame(of), "val_accuracy", "val_sd") for of in (found, plain))
    gain = one.minus(other)
    verdict = "is not significant: the question stays open."
    if gain.differs and gain.mean < 0:
        verdict = "is significant: with skips depth costs more."
    elif gain.differs:
        verdict = (
            "is significant, and so is the gain of the deepest network: deep plain networks lose "
            "because they are harder to train."
            if deepest.differs and deepest.mean > 0
            else "is significant, but the deepest network gains nothing by itself: with skips "
            "depths are more alike, not better."
        )
    return (
        f"Each additional hidden layer changes validation accuracy by {one} percentage points with "
        f"skips and by {other} without (95 % intervals over seeds). The difference of the slopes, "
        f"{gain}, {verdict}"
    )


def diagnostics() -> str:
    """The table of what the networks of each depth do beyond their accuracy."""
    summary, bins, layers = (
        files.read_csv(DIAGNOSTICS / f"{name}.csv", ["model"])
        for name in ("summary", "calibration", "layers")
    )
    bins["excess"] = bins["count"] * (bins["confidence"] - bins["accuracy"])
    sums = bins.groupby("model")[["excess", "count"]].sum()
    ends = layers.groupby(["model", "state"])[["gradient_norm", "similarity"]]
    ratio = ends.first()["gradient_norm"] / ends.last()["gradient_norm"]
    rows = []
    for m in summary.itertuples():
        both = [(m.model, state) for state in ("initial", "trained")]
        ratios = " | ".join(f"{ratio[key]:.2f}" if m.depth else "" for key in both)
        cosines = " | ".join(f"{ends.last()['similarity'][key]:.2f}" for key in both)
        excess = sums.loc[m.model, "excess"] / sums.loc[m.model, "count"]
        rows.append(
            f"{m.depth} | {m.test_loss:.4f} | {percent(m.ece)} | {100 * excess:+.2f} | "
            f"{m.wrong_by_all_seeds} | {ratios} | {cosines}"
        )
    return markdown(
        "hidden layers: | NLL, nats: | ECE, %: | confidence minus accuracy, %: | "
        "errors common to all seeds: | gradient norm, first / last layer, initial: | trained: | "
        "cosine, initial: | trained:",
        rows,
    )


def steps() -> str:
    """The table of milliseconds of a step of the sampled softmax and of its rivals."""
    columns = ("classes", "samples", "contestant", "processor_ms")
    uniform, zipf = (
        files.read_csv(RECORDS / f"sampled_softmax{name}.csv", columns) for name in ("", "_zipf")
    )
    uniform["head"] = [f"C = {count:,}:" for count in uniform["classes"]]
    zipf["head"] = [f"C = {m.classes:,}, K = {m.samples:,}, Zipf:" for m in zipf.itertuples()]
    table = pd.concat([uniform, zipf])
    table["cell"] = [f"{ms:,.1f}" if ms < 1000 else f"{ms:,.0f}" for ms in table["processor_ms"]]
    return _by_head(table, "step")


def epochs() -> str:
    """The table of processor seconds of an epoch, and the mean ratio to isoparam."""
    columns = ("depth", "contestant", "processor_s", "to_isoparam")
    table = files.read_csv(TRAINING / "epochs.csv", columns)
    table["head"] = [f"L{depth}, s:" for depth in table["depth"]]
    table["cell"] = [f"{seconds:.2f}" for seconds in table["processor_s"]]
    means = table[table["depth"] > 0].groupby("contestant", sort=False)["to_isoparam"].mean()
    means = means.map("{:.2f}".format).rename("cell").reset_index()
    shown = table[table["depth"].isin([0, 1, 4, 8])]
    return _by_head(pd.concat([shown, means.assign(head="relative to isoparam:")]), "")


def processes() -> str:
    """The table of milliseconds of a step in several processes or threads, or in strict mode."""
    columns = ("contestant", "best_ms", "processor_ms")
    return markdown(
        " | time, ms a step: | processor time of all, ms:",
        (
            f"{m.contestant} | {m.best_ms:.2f} | {m.processor_ms:.2f}"
            for m in files.read_csv(TRAINING / "processes.csv", columns).itertuples()
        ),
    )


def printed(name: str) -> str:
    """What an example printed: a sentence on its data, and a table."""
    path = RECORDS / f"{name}.csv"
    note = path.read_text(encoding="utf-8").partition("\n")[0]
    rows = pd.read_csv(path, comment="#", dtype=str)
    heads = [("ms_a_step", "ms a step:", rows.drop_duplicates("loss"))] + [
        (column, f"{column.replace('_', ' ')}, {seconds} s:", of_time)
        for column in rows.columns[4:]
        for seconds, of_time in rows.groupby("processor_s", sort=False)
    ]
    cells = pd.concat(
        of.assign(contestant=of["loss"], head=head, cell=of[column]) for column, head, of in heads
    )
    return f"{note.removeprefix('# ')}:\n\n{_by_head(cells, 'loss')}"


def _by_head(table: pd.DataFrame, corner: str) -> str:
    """A row for each contestant, isoparam's in bold, and a column for each head."""
    wide = table.pivot_table("cell", "contestant", "head", aggfunc="first", sort=False).fillna("")
    rows = (
        " | ".join([f"**{name}**" if name == "isoparam" else str(name), *cells])
        for name, cells in zip(wide.index, wide.to_numpy(), strict=True)
    )
    return markdown(" | ".join([corner, *wide.columns]), rows)


def recorded(name: str) -> str:
    """The report of a benchmark."""
    return files.read_text(RECORDS / f"{name}.md").rstrip()


FOUND = (
    "claim results differences assumptions log_likelihood best trend sampled instance regularised "
    "fashion fashion_table budgets depth_answer chosen"
).split()
# Each by the name of its function, and what benchmarks wrote by the name of its file.
BLOCKS: dict[str, Callable[[], str]] = (
    {name: getattr(findings, name) for name in FOUND}
    | {"widths": widths, "metrics-show": metrics_show, "learning-rates": learning_rates}
    | {"trend-by-rate": trend_by_rate, "skips": skips, "recipes": recipes}
    | {"linear_answer": partial(findings.answer, 0), "hidden_answer": partial(findings.answer, 1)}
    | {"bfloat16": partial(findings.study, "bfloat16"), "diagnostics": diagnostics}
    | {"steps": steps, "epochs": epochs, "processes": processes}
    # Of a run of the study, all but the table of its stages.
    | {"run": lambda: recorded("repro").partition("\n\n| stage |")[0]}
    | {name: partial(recorded, name) for name in ("scale", "emulated", "strict_cost")}
    | {name: partial(printed, name) for name in ("language_model", "recommender")}
)
