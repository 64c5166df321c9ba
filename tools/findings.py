"""What the study found, in sentences and tables of Markdown, from what is recorded."""

from collections.abc import Iterable
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pandas as pd

from isoparam.results.comparisons import LEVEL
from pipeline import files, parameters

METRICS = Path("metrics")
STUDIES = Path("studies")
SECONDS = Path("benchmarks/results/instance.csv")
BEST, BELOW = "may be the best", "significantly below the best"
OFF, UNTESTED = "off the budget", "not tested"
VERDICTS = (BEST, BELOW, OFF, UNTESTED)
WEIGHTINGS = {
    "full": "full softmax",
    "importance": "sampled, importance weights",
    "stated": "sampled, stated weights",
    "none": "sampled, no correction",
}


def markdown(heads: str, rows: Iterable[str]) -> str:
    """A table of rows such as `1 | 2`; a head is aligned right by a colon, centred by two."""
    names = heads.split(" | ")
    marks = (f"{':' * name.startswith(':')}---{':' * name.endswith(':')}" for name in names)
    lines = (" | ".join(name.strip(":") for name in names).lstrip(), " | ".join(marks), *rows)
    return "\n".join(f"| {line} |" for line in lines)


def claim(folder: Path = METRICS) -> str:
    """What the study with these metrics found, in a few sentences."""
    metrics, comparisons = _metrics(folder), read_comparisons(folder)
    chosen = files.read_json(folder / "summary.json")
    start = f"**At {parameters.read_params().budget:,} parameters, "
    network = f"{_hidden_layers([chosen['depth']])} of {chosen['width']} units"
    accuracy, seeds = f"{interval(chosen)} %", chosen["seeds"]
    over = f"mean and 95 % interval over {seeds} seeds" if seeds > 1 else "one seed"
    if any(pair["p"] is not None for pair in comparisons["pairs"]):
        best = {metrics[name]["depth"] for name in comparisons["may_be_best"]}
        text = (
            f"{start}{_best_depth(comparisons, metrics)}** (test accuracy, 95 % confidence for new "
            f"seeds and new test images, from {seeds} seeds). "
            f"{_significance(comparisons['pairs'], metrics)} {_alone(comparisons, metrics)} "
            f"Validation chooses {network}, "
            f"{'' if chosen['depth'] in best else 'not one of these, '}with {accuracy} test "
            f"accuracy ({over})."
        )
    else:
        text = (
            f"{start}{network} reach {accuracy} test accuracy** (chosen by validation; {over}). "
            "These runs cannot show which differences between depths exceed those between seeds."
        )
    linear = [m for m in metrics.values() if m["depth"] == 0]
    return text + "".join(
        f" The network without a hidden layer has {m['parameters']:,} parameters and reaches "
        f"{interval(m)} %."
        for m in linear[:1]
    )


def listed(texts: list[str], conjunction: str = "and") -> str:
    """As in a sentence: a, b and c."""
    *others, last = texts
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def _hidden_layers(depths: list[int], conjunction: str = "or") -> str:
    text = listed([*map(str, depths)], conjunction)
    return f"{text} hidden layer{'s' * (text != '1')}"


def _best_depth(compared: dict[str, Any], metrics: dict[str, dict[str, Any]]) -> str:
    """Which depths may be the best."""
    p_best = compared["p_best"]
    depths = sorted({metrics[name]["depth"] for name in p_best})
    best = sorted({metrics[name]["depth"] for name, p in p_best.items() if p > LEVEL})
    if best == depths:
        return f"every depth from {depths[0]} to {depths[-1]} may be the best"
    return f"the best depth is {_hidden_layers(best)}"


def _significance(pairs: list[dict[str, Any]], metrics: dict[str, dict[str, Any]]) -> str:
    """How many of the differences are significant, and the largest."""
    largest = max(pairs, key=lambda pair: abs(pair["difference"]))
    depths = [metrics[largest[name]]["depth"] for name in ("first", "second")]
    size = (
        f"{percent(abs(largest['difference']))} percentage points between "
        f"{_hidden_layers(depths, 'and')}"
    )
    if len(pairs) == 1:
        verdict = "" if is_significant(largest) else "not "
        return f"The difference of {size} is {verdict}significant (t test)."
    count, total = sum(map(is_significant, pairs)), len(pairs)
    counted = {0: "None of the", total: "All"}.get(count, f"{count} of the")
    return (
        f"{counted} {total} pairwise differences among depths at this budget "
        f"{'is' if count < 2 else 'are'} significant (Tukey's test)"
        f"{', up to' if is_significant(largest) else '; the largest is'} {size}."
    )


def _alone(comparisons: dict[str, Any], metrics: dict[str, dict[str, Any]]) -> str:
    """The same for new seeds alone."""
    found = comparisons["these_images"]
    if found["deviation"] is None:
        return "These runs give no test for new seeds alone."
    count, best = sum(map(is_significant, found["pairs"])), _best_depth(found, metrics)
    if best == _best_depth(comparisons, metrics):
        best = "the best depth is the same"
    return (
        f"For new seeds alone, {best}, and {count} difference{'s are' if count != 1 else ' is'} "
        "significant."
    )


def log_likelihood(folder: Path = METRICS) -> str:
    """The comparison by the mean negative log-likelihood, in two sentences."""
    metrics, found = _metrics(folder), read_comparisons(folder)["log_likelihood"]
    if all(pair["p"] is None for pair in found["pairs"]):
        return "These runs give no test of the negative log-likelihood."
    return (
        f"By the negative log-likelihood, {_best_depth(found, metrics)}. "
        f"{sum(map(is_significant, found['pairs']))} of the {len(found['pairs'])} pairwise "
        "differences are significant."
    )


def assumptions() -> str:
    """What the tests of the differences assume, and what supports the assumptions."""
    comparisons = read_comparisons()
    found = comparisons["these_images"]
    if found["deviation"] is None:
        return "These runs give no spread over seeds: it takes two depths and two seeds."
    verdict = "contradicts" if found["p_equal"] <= LEVEL else "does not contradict"
    return (
        "All tests assume that the depths have the same standard deviation over seeds, "
        f"{percent(found['deviation'], 3)} percentage points on these test images and "
        f"{percent(comparisons['seed_deviation'], 3)} on infinitely many. Bartlett's test "
        f"{verdict} this (p {_p(found['p_equal'], '= ')}). In simulated studies with equal means "
        "and the measured deviations, Tukey's test for new seeds alone raises a false alarm in "
        f"{percent(found['level'], 1)} % of them."
    )


def trend() -> str:
    """Slope and curvature of accuracy against depth, in a sentence or two."""
    slope, curvature = (read_comparisons()["trend"][name] for name in ("slope", "curvature"))
    if slope is None or slope["p"] is None:
        return "These runs give no trend: it takes two depths on the budget and two seeds."

    mean, lo, hi = (f"{100 * slope[key]:+.4f}" for key in ("mean", "lo", "hi"))
    text = (
        f"A straight line fitted to the accuracies changes by {mean} percentage points for each "
        f"additional hidden layer (95 % interval {lo} to {hi}, p {_p(slope['p'], '= ')}): the "
        f"slope is{'' if slope['p'] <= LEVEL else ' not'} significant."
    )
    if curvature is not None and curvature["p"] is not None:
        opens = "downwards" if curvature["mean"] < 0 else "upwards"
        text += (
            f" A fitted parabola opens {opens} (p {_p(curvature['p'], '= ')}): the curvature "
            f"is{'' if curvature['p'] <= LEVEL else ' not'} significant."
        )
    return text


def results() -> str:
    """The table of all models."""
    return markdown(
        "hidden layers: | units each: | parameters: | test accuracy, %: | "
        "validation accuracy, %: | verdict",
        (
            f"{m['depth']} | {m['width'] or ''} | {m['parameters']:,} | {interval(m)} | "
            f"{percent(m['val_accuracy'])} | {verdict(name)}"
            for name, m in _metrics().items()
        ),
    )


def verdict(name: str, folder: Path = METRICS) -> str:
    """How a model compares with the best depth, in the words of the figure."""
    comparisons = read_comparisons(folder)
    if name not in comparisons["p_best"]:
        return OFF
    if all(pair["p"] is None for pair in comparisons["pairs"]):
        return UNTESTED
    return BEST if name in comparisons["may_be_best"] else BELOW


def differences() -> str:
    """The matrix of the differences of all pairs of models on the budget."""
    comparisons = read_comparisons()
    *names, last = comparisons["p_best"]
    cells = {(pair["first"], pair["second"]): _points(pair) for pair in comparisons["pairs"]}
    return markdown(
        "".join(f" | minus {first}:" for first in names),
        (
            " | ".join([second, *(cells.get((first, second), "") for first in names)])
            for second in (*names[1:], last)
        ),
    )


def pairs() -> str:
    """The table of all differences that the matrix shows, with what it leaves out."""
    rows, comparisons = [], read_comparisons()
    for pair, alone in zip(comparisons["pairs"], comparisons["these_images"]["pairs"], strict=True):
        # The matrix has second minus first.
        lo, hi = (None if pair[end] is None else -100 * pair[end] for end in ("hi", "lo"))
        ends = "" if lo is None or hi is None else f"{lo:+.3f} to {hi:+.3f}"
        ps = ("" if p is None else _p(p) for p in (pair["p_adjusted"], alone["p_adjusted"]))
        rows.append(
            f"{pair['second']} less {pair['first']} | {-100 * pair['difference']:+.3f} | {ends} | "
            f"{' | '.join(ps)} | {'yes' if is_significant(pair) else ''}"
        )
    heads = (
        "difference | points: | 95 % interval: | p, Tukey's test: | p for new seeds alone: | "
        ":significant:"
    )
    return markdown(heads, rows)


def _points(pair: dict[str, Any]) -> str:
    """The second less the first, in points; bold where significant."""
    rounded = round(-100 * pair["difference"], 2)
    points = f"{rounded:+.2f}" if rounded else "0.00"
    return f"**{points}**" if is_significant(pair) else points


def best() -> str:
    """The table of how each model compares with the best."""
    metrics, comparisons = _metrics(), read_comparisons()
    p_best, alone = comparisons["p_best"], comparisons["these_images"]["p_best"]
    return markdown(
        "model | test accuracy, %: | standard deviation over seeds: | "
        "p of *no other is better*, new seeds and images: | new seeds alone: | verdict | "
        "interval for new seeds and images, %:",
        (
            f"{name} | {interval(metrics[name])} | {percent(metrics[name]['test_sd'])} | "
            f"{_p(p_best[name]) if name in p_best else ''} | "
            f"{_p(alone[name]) if name in alone else ''} | {verdict(name)} | "
            f"{' to '.join(percent(ends[end]) for end in ('lo', 'hi') if ends[end] is not None)}"
            for name, ends in comparisons["intervals"].items()
        ),
    )


def sampled() -> str:
    """The table of the linear classifiers trained on sampled classes."""
    return markdown(
        "training | K: | learning rate: | test accuracy, %: | full negative log-likelihood, nats:",
        (
            f"{WEIGHTINGS[m['weighting']]} | {m['samples'] or ''} | {m['learning_rate']:g} | "
            f"{interval(m, ends='test_accuracy')} | {interval(m, 'test_loss', 'test_loss', 1, 4)}"
            for m in files.read_json(METRICS / "sampled.json").values()
        ),
    )


def instance() -> str:
    """The table of the trainings on as many classes as images; the benchmark timed some."""
    laws = {"uniform": "uniformly", "zipf": "by Zipf's law"}
    timed: dict[Any, str] = {}
    if SECONDS.exists():
        for row in files.read_csv(SECONDS, ("run", "epochs", "processor_s")).itertuples():
            timed[row.run, row.epochs] = f"{row.processor_s:.0f}"
    return markdown(
        "images drawn | training | K: | epochs: | processor, s: | learning rate: | "
        "top-1 on new views, %: | full negative log-likelihood, nats:",
        (
            f"{laws[m['images']]} | {WEIGHTINGS[m['weighting']]} | {m['samples'] or ''} | "
            f"{m['epochs']} | {timed.get((run, m['epochs']), '')} | "
            f"{m['learning_rate']:g} | {percent(m['test_accuracy'], 1)} | {m['test_loss']:.2f}"
            for run, m in files.read_json(METRICS / "instance.json").items()
        ),
    )


def study(name: str) -> str:
    """The table of another study beside the plain one."""
    plain = _metrics()
    return markdown(
        f" | parameters: | plain, %: | {name}, %: | standard deviation: | seeds:",
        (
            f"{model} | {m['parameters']:,} | {interval(plain[model])} | {interval(m)} | "
            f"{percent(m['test_sd'])} | {m['seeds']}"
            for model, m in _study(name).items()
        ),
    )


def regularised() -> str:
    """The regularised study, and the depth that validation chooses."""
    chosen = max(_study("regularised").values(), key=lambda m: m["val_accuracy"])
    return (
        f"{study('regularised')}\n\n"
        f"Validation chooses {_hidden_layers([chosen['depth']])} of {chosen['width']} units, with "
        f"{interval(chosen)} % test accuracy (mean and 95 % interval over {chosen['seeds']} seeds)."
    )


def fashion() -> str:
    """What the study on Fashion-MNIST found."""
    folder = STUDIES / "fashion/metrics"
    return f"{claim(folder)} {log_likelihood(folder)}"


def fashion_table() -> str:
    """Its networks, with their learning rates."""
    folder = STUDIES / "fashion"
    rates = chosen_rates(folder / "learning_rates.csv").set_index("model")["learning_rate"]
    return markdown(
        "model | learning rate: | validation accuracy, %: | test accuracy, %: | "
        "standard deviation over seeds: | verdict",
        (
            f"{name} | {rates[name]:g} | {percent(m['val_accuracy'])} | {interval(m)} | "
            f"{percent(m['test_sd'])} | {verdict(name, folder / 'metrics')}"
            for name, m in _metrics(folder / "metrics").items()
        ),
    )


def budgets() -> str:
    """Test accuracy and learning rate of each budget and depth; no mean where seeds collapse."""
    rows, names, best_depths, falls = [], [], [], []
    for budget, table in read_budgets().items():
        deep = table[table["depth"] > 0]
        if not deep["collapsed"].any():  # no test of means allows for seeds that learn nothing
            may_be_best = deep.loc[deep["may_be_best"], "depth"].tolist()
            best_depths.append(f"{listed([*map(str, may_be_best)], 'or')} at {budget:,}")
            fall = deep["accuracy"].max() - deep["accuracy"].iloc[-1]
            falls.append(f"{100 * fall:.2f} points at {budget:,}")
        off = 100 * (deep["parameters"] - budget) / budget
        names, best = deep["model"].tolist(), deep["accuracy"].max()
        cells = []
        for m in deep.itertuples():
            mean = f"**{percent(m.accuracy)}**" if m.accuracy == best else percent(m.accuracy)
            shown = f"{m.collapsed} of {m.seeds} collapsed" if m.collapsed else mean
            cells.append(f"{shown} ({m.learning_rate:g})")
        rows.append(
            f"{budget:,} | {off.min():+.1f} to {off.max():+.1f} | {deep['seeds'].iloc[0]} | "
            f"{' | '.join(cells)}"
        )
    heads = ["parameters:", "off by, %:", "seeds:", *(f"{name}:" for name in names)]
    return (
        f"{markdown(' | '.join(heads), rows)}\n\n"
        "With 95 % confidence, for new seeds and new test images, the best depth is "
        f"{'; '.join(best_depths)} parameters. {names[-1]} is below the highest mean by "
        f"{listed(falls)}."
    )


def read_budgets() -> dict[int, pd.DataFrame]:
    """The table of the study at each budget, from the lowest to that of params.yaml."""
    columns = (
        "model depth width parameters seeds accuracy accuracy_lo accuracy_hi collapsed may_be_best"
    )
    found = {}
    for path in (STUDIES / "budgets").glob("[0-9]*/depth_accuracy.csv"):
        found[int(path.parent.name)] = path, path.with_name("learning_rates.csv")
    budget = parameters.read_params().budget
    found[budget] = Path("plots/depth_accuracy.csv"), Path("tuning/learning_rates.csv")
    return {
        budget: files.read_csv(table, columns.split()).merge(chosen_rates(rates), on="model")
        for budget, (table, rates) in sorted(found.items())
    }


def chosen_rates(path: Path) -> pd.DataFrame:
    """Each model and its learning rate, from a table of those tried."""
    tried = files.read_csv(path, ("model", "learning_rate", "chosen"))
    return tried.loc[tried["chosen"], ["model", "learning_rate"]]


def answer(depth: int) -> str:
    """The homework's answer on the model of a depth: its accuracy, and how it was trained."""
    params = parameters.read_params()
    name = next(name for name, model in params.models.items() if model.depth == depth)
    m, train = _metrics()[name], params.train
    return (
        f"**Answer: {interval(m)} % test accuracy** (mean and 95 % interval over {m['seeds']} "
        f"seeds), with {m['parameters']:,} parameters. Peak learning rate "
        f"{parameters.learning_rate_of(name):g}, batch size {train.batch_size}, {train.epochs} "
        f"epochs, momentum {train.momentum:g}, weight decay {train.weight_decay:g}."
    )


def depth_answer() -> str:
    """The answer of the homework's 2.4, in one sentence."""
    metrics, comparisons = _metrics(), read_comparisons()
    on_budget = [metrics[name] for name in comparisons["p_best"]]
    top = max(on_budget, key=lambda m: m["test_accuracy"])
    first, last = on_budget[0], on_budget[-1]
    return (
        f"**Answer.** Test accuracy is highest at {_hidden_layers([top['depth']])}, with "
        f"{interval(top)} % against {interval(first)} % at {first['depth']} and {interval(last)} % "
        f"at {last['depth']}, and with 95 % confidence {_best_depth(comparisons, metrics)}."
    )


def chosen() -> str:
    """The model that validation chose, and how well it does, in a sentence."""
    m = files.read_json(METRICS / "summary.json")
    return (
        f"{_hidden_layers([m['depth']])} of {m['width']} units, with {interval(m)} % test accuracy "
        f"(mean and 95 % interval over {m['seeds']} seeds) and a negative log-likelihood of "
        f"{m['test_loss']:.4f} nats."
    )


def chosen_model() -> str:
    """The name of the model that validation chose."""
    depth = files.read_json(METRICS / "summary.json")["depth"]
    models = parameters.read_params().models
    return next(name for name, model in models.items() if model.depth == depth)


def class_names() -> list[str]:
    """The names of the classes: digits, letters, or those of own data."""
    data = parameters.read_params().data
    if data.dataset == "own":
        return list(data.names or [])
    _, classes = data.sizes
    letters = data.dataset == "emnist-letters"
    return list(ascii_lowercase[:classes]) if letters else [str(i) for i in range(classes)]


def read_comparisons(folder: Path = METRICS) -> dict[str, Any]:
    """What the stage aggregate says of all pairs of depths."""
    return files.read_json(folder / "comparisons.json")


def is_significant(pair: dict[str, Any]) -> bool:
    """Whether the two depths differ, corrected for the number of pairs."""
    return pair["p_adjusted"] is not None and pair["p_adjusted"] <= LEVEL


def interval(
    m: dict[str, Any],
    mean: str = "test_accuracy",
    ends: str = "test",
    scale: float = 100.0,
    digits: int = 2,
) -> str:
    """A mean, in percent if not said otherwise, with half the length of its interval if any."""
    lo, hi = m[f"{ends}_lo"], m[f"{ends}_hi"]
    text = f"{scale * m[mean]:.{digits}f}"
    return text if hi is None else f"{text} ± {scale * (hi - lo) / 2:.{digits}f}"


def percent(share: float | None, digits: int = 2) -> str:
    """A share in percent, without the sign; nothing if there is none."""
    return "" if share is None else f"{100 * share:.{digits}f}"


def _p(p: float, equals: str = "") -> str:
    return "< 0.001" if p < 0.001 else f"{equals}{p:.3f}"


def _metrics(folder: Path = METRICS) -> dict[str, dict[str, Any]]:
    params = parameters.read_params()
    return {name: files.read_json(folder / f"depths/{name}.json") for name in params.models}


def _study(name: str) -> dict[str, dict[str, Any]]:
    paths = sorted((STUDIES / name / "metrics").glob("L*.json"))
    return {path.stem: files.read_json(path) for path in paths}
