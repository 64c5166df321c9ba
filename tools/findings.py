"""What the study found, in words and tables for the documents, from metrics/."""

from math import isnan
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from isoparam.images.datasets import sizes_of
from isoparam.results.comparisons import LEVEL
from pipeline import files, parameters

METRICS = Path("metrics")
TUNING = Path("tuning/learning_rates.csv")
TRIALS = Path("benchmarks/results")
STUDIES = Path("studies")


def claim() -> str:
    """What the study found, in a few sentences."""
    metrics, comparisons = _metrics(), read_comparisons()
    chosen = files.read_json(METRICS / "summary.json")
    start = f"**At {parameters.read_params().budget:,} parameters, "
    units = "hidden layer" if chosen["depth"] == 1 else "hidden layers"
    network = f"{chosen['depth']} {units} of {chosen['width']} units"
    accuracy = f"{interval(chosen)} %"
    seeds = chosen["seeds"]
    over = f"mean and 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"
    pairs = pairs_on_budget(comparisons)
    if any(pair["p"] is not None for pair in pairs):
        among = chosen["depth"] in _depths(metrics, comparisons["may_be_best"])
        text = (
            f"{start}{_which_is_best(metrics, comparisons)}** (test accuracy, 95 % confidence, "
            f"{seeds} seeds). {_significance(pairs)} Validation chooses {network}, "
            f"{'' if among else 'not one of these, '}with {accuracy} ({over})."
        )
    else:
        text = (
            f"{start}{network} classify {accuracy} of the test images rightly** (chosen by "
            f"validation; {over}). Which differences between depths are more than the luck of a "
            f"seed, these runs cannot tell."
        )
    linear = next((m for m in metrics.values() if m["depth"] == 0), None)
    if linear:
        text += (
            f" Without a hidden layer it is {interval(linear)} %, "
            f"with {linear['parameters']:,} parameters."
        )
    return text


def results() -> str:
    """The table of all models."""
    lines = [
        (
            "| hidden layers | units each | parameters | off the budget by | test accuracy, % "
            "| standard deviation | may be the best | validation accuracy, % |"
        ),
        "| ---: | ---: | ---: | ---: | ---: | ---: | :---: | ---: |",
    ]
    may_be_best = read_comparisons()["may_be_best"]
    for name, m in _metrics().items():
        deviation = 100 * m["test_sd"] if m["test_sd"] is not None else float("nan")
        lines.append(
            f"| {m['depth']} | {m['width'] or ''} | {m['parameters']:,} "
            f"| {m['deviation']:+,}{'' if m['on_budget'] else ' (off)'} "
            f"| {interval(m)} | {deviation:.2f} | {'yes' if name in may_be_best else ''} "
            f"| {100 * m['val_accuracy']:.2f} |"
        )
    return "\n".join(lines)


def differences() -> str:
    """The matrix of the differences of all pairs of models."""
    comparisons = read_comparisons()
    names = list(comparisons["sampling"])
    pairs = {(pair["first"], pair["second"]): pair for pair in comparisons["pairs"]}
    lines = [
        f"| | {' | '.join(f'less {name}' for name in names[:-1])} |",
        f"| --- |{' ---: |' * (len(names) - 1)}",
    ]
    for row, second in enumerate(names[1:], start=1):
        cells = [_second_less_first(pairs[first, second]) for first in names[:row]]
        cells += [""] * (len(names) - 1 - row)
        lines.append(f"| {second} | {' | '.join(cells)} |")
    return "\n".join(lines)


def best() -> str:
    """The table of how each model stands to the best, and to other test images."""
    metrics, comparisons = _metrics(), read_comparisons()
    lines = [
        (
            "| | test accuracy and interval over seeds, % | p of *no other is better* "
            f"| may be the best | interval over {comparisons['test_images']:,} test images, % |"
        ),
        "| --- | ---: | ---: | :---: | ---: |",
    ]
    for name, sampling in comparisons["sampling"].items():
        p = comparisons["p_best"].get(name)
        lines.append(
            f"| {name} | {interval(metrics[name])} | {'off the budget' if p is None else _p(p)} "
            f"| {'yes' if name in comparisons['may_be_best'] else ''} "
            f"| {100 * sampling['lo']:.2f} to {100 * sampling['hi']:.2f} |"
        )
    return "\n".join(lines)


def trend() -> str:
    """Slope and curvature of accuracy against depth, in a sentence or two."""
    slope, curvature = (read_comparisons()["trend"][name] for name in ("slope", "curvature"))
    if slope is None or slope["p"] is None:
        return "These runs do not tell a trend: it takes two depths on the budget and two seeds."
    mean, lo, hi = (f"{100 * slope[key]:+.4f}" for key in ("mean", "lo", "hi"))
    text = (
        f"A line through the accuracies changes by {mean} points with each further hidden layer "
        f"(95 % interval {lo} to {hi}, p {_p(slope['p'], '= ')}): "
        f"{'a' if slope['p'] <= LEVEL else 'no'} significant slope."
    )
    if curvature is not None and curvature["p"] is not None:
        text += (
            f" A parabola through them opens {'downwards' if curvature['mean'] < 0 else 'upwards'}"
            f" (p {_p(curvature['p'], '= ')}): "
            f"{'a' if curvature['p'] <= LEVEL else 'no'} significant curvature."
        )
    return text


def learning_rates() -> str:
    """The table of the learning rates that were tried and of those chosen."""
    table = files.read_csv(
        TUNING, ("model", "learning_rate", "accuracy", "accuracy_sd", "seeds", "chosen")
    )
    lines = ["| | learning rate: validation accuracy, % | chosen |", "| --- | --- | ---: |"]
    for name, grid in table.groupby("model", sort=False):
        cells = [
            f"{row.learning_rate:g}: "
            + ("diverged" if isnan(row.accuracy) else f"{100 * row.accuracy:.2f}")
            for row in grid.itertuples()
        ]
        (chosen,) = grid["learning_rate"][grid["chosen"]]
        lines.append(f"| {name} | {', '.join(cells)} | {chosen:g} |")
    return "\n".join(lines)


def plain_recipes() -> str:
    """The plain recipes that were tried."""
    return _recipes("plain")


def regularisation() -> str:
    """The ways to regularise that were tried."""
    return _recipes("regularisation")


def _recipes(kind: str) -> str:
    """A row for each network and recipe: what differs from its first, and the accuracy."""
    known = ("model", "seed", "learning_rate", "epochs", "validation_accuracy")
    table = files.read_csv(TRIALS / f"{kind}.csv", known)
    others = [name for name in table if name not in known]
    lines = [
        "| network | epochs | learning rate | what differs | seeds | validation accuracy, % |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    first: dict[str, tuple[float, ...]] = {}
    groups = table.groupby(["model", "epochs", "learning_rate", *others], sort=False)
    for (model, epochs, rate, *values), rows in groups:
        usual = first.setdefault(model, tuple(values))
        differs = [
            f"`{name}` {value:g}"
            for name, value, its_usual in zip(others, values, usual, strict=True)
            if value != its_usual
        ]
        accuracy = rows["validation_accuracy"]
        mean = "diverged" if accuracy.isna().any() else f"{100 * accuracy.mean():.2f}"
        lines.append(
            f"| {model} | {epochs} | {rate:g} | {', '.join(differs)} | {len(rows)} | {mean} |"
        )
    return "\n".join(lines)


def study(name: str) -> str:
    """The table of another study beside the plain one."""
    plain = _metrics()
    lines = [
        f"| | parameters | plain, % | {name}, % | its standard deviation | its seeds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {model} | {m['parameters']:,} | {interval(plain[model])} | {interval(m)} "
        f"| {100 * m['test_sd']:.2f} | {m['seeds']} |"
        for model, m in _study(name).items()
    ]
    return "\n".join(lines)


def regularised() -> str:
    """The regularised study, and the depth that validation chooses."""
    chosen = max(_study("regularised").values(), key=lambda m: m["val_accuracy"])
    return (
        f"{study('regularised')}\n\n"
        f"Validation chooses {chosen['depth']} hidden layers of {chosen['width']} units, with "
        f"{interval(chosen)} % of the test images classified rightly (mean and 95 % interval "
        f"over {chosen['seeds']} seeds)."
    )


def bfloat16() -> str:
    """The study with matrix products in bfloat16."""
    return study("bfloat16")


def budgets() -> str:
    """Test accuracy of each budget and depth, and which depths may be the best."""
    paths = {int(path.stem): path for path in (STUDIES / "budgets").glob("[0-9]*.csv")}
    paths[parameters.read_params().budget] = Path("plots/depth_accuracy.csv")
    columns = ("model", "depth", "seeds", "accuracy", "may_be_best")
    tables = {budget: files.read_csv(path, columns) for budget, path in sorted(paths.items())}
    names = list(next(iter(tables.values()))["model"][1:])
    lines = [
        f"| parameters | seeds | {' | '.join(names)} | may be the best |",
        f"| ---: | ---: |{' ---: |' * len(names)} --- |",
    ]
    for budget, table in tables.items():
        rows = table[table["depth"] > 0]
        best = rows["accuracy"].max()
        cells = [
            f"**{100 * accuracy:.2f}**" if accuracy == best else f"{100 * accuracy:.2f}"
            for accuracy in rows["accuracy"]
        ]
        may_be_best = ", ".join(rows["model"][rows["may_be_best"]])
        lines.append(
            f"| {budget:,} | {rows['seeds'].iloc[0]} | {' | '.join(cells)} | {may_be_best} |"
        )
    return "\n".join(lines)


def _study(name: str) -> dict[str, dict[str, Any]]:
    paths = sorted((STUDIES / name / "metrics").glob("L*.json"))
    return {path.stem: files.read_json(path) for path in paths}


def chosen_model() -> str:
    """The name of the model that validation chose."""
    depth = files.read_json(METRICS / "summary.json")["depth"]
    models = parameters.read_params().models
    return next(name for name, model in models.items() if model.depth == depth)


def class_names() -> list[str]:
    """What the classes of the data set are called: digits, letters, or as one's own data say."""
    data = parameters.read_params().data
    if data.dataset == "own":
        return list(data.names or [])
    _, classes = sizes_of(data.dataset, data.own)
    letters = data.dataset == "emnist-letters"
    return list(ascii_lowercase[:classes]) if letters else [str(i) for i in range(classes)]


def interval(m: dict[str, Any]) -> str:
    """A mean test accuracy in percent, with half the length of its interval if it has one."""
    mean = f"{100 * m['test_accuracy']:.2f}"
    return mean if m["test_hi"] is None else f"{mean} ± {50 * (m['test_hi'] - m['test_lo']):.2f}"


def _metrics() -> dict[str, dict[str, Any]]:
    params = parameters.read_params()
    return {name: files.read_json(METRICS / f"depths/{name}.json") for name in params.models}


def read_comparisons() -> dict[str, Any]:
    """What the stage aggregate says of all pairs of depths."""
    return files.read_json(METRICS / "comparisons.json")


def pairs_on_budget(comparisons: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs of two depths on the budget."""
    names = comparisons["p_best"]
    return [p for p in comparisons["pairs"] if p["first"] in names and p["second"] in names]


def _depths(metrics: dict[str, dict[str, Any]], names: list[str]) -> list[int]:
    return sorted({metrics[name]["depth"] for name in names})


def _which_is_best(metrics: dict[str, dict[str, Any]], comparisons: dict[str, Any]) -> str:
    depths = _depths(metrics, comparisons["p_best"])
    may_be_best = _depths(metrics, comparisons["may_be_best"])
    if may_be_best == depths:
        return f"no depth from {depths[0]} to {depths[-1]} can be ruled out as the best"
    *others, last = map(str, may_be_best)
    if not others:
        return f"the best depth is {last} hidden layer{'' if last == '1' else 's'}"
    return f"the best depth is one of {', '.join(others)} and {last} hidden layers"


def _significance(pairs: list[dict[str, Any]]) -> str:
    """How many of the differences are significant, and whether the largest is."""
    largest = max(pairs, key=lambda pair: abs(pair["difference"]))
    between = (
        f"{100 * abs(largest['difference']):.2f} points between {largest['first']} and "
        f"{largest['second']}, {'is' if is_significant(largest) else 'is not'}"
    )
    if len(pairs) == 1:
        return f"The difference, {between} significant (paired t test)."
    count = sum(map(is_significant, pairs))
    counted = {0: "none is", 1: "one is", len(pairs): "all are"}.get(count, f"{count} are")
    return (
        f"Of the {len(pairs)} differences between depths on the budget {counted} significant "
        f"(paired t tests, Holm's correction); the largest, {between}."
    )


def is_significant(pair: dict[str, Any]) -> bool:
    """Whether the two depths differ, with Holm's correction."""
    return pair["p_adjusted"] is not None and pair["p_adjusted"] <= LEVEL


def _second_less_first(pair: dict[str, Any]) -> str:
    """In points; bold where significant."""
    rounded = round(-100 * pair["difference"], 2)
    points = f"{rounded:+.2f}" if rounded else "0.00"
    return f"**{points}**" if is_significant(pair) else points


def _p(p: float, equals: str = "") -> str:
    return "< 0.001" if p < 0.001 else f"{equals}{p:.3f}"
