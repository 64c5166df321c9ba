"""`make report`: one page with all results, from what is recorded. No stage of DVC.

It opens without a server or a network. Where the models lie, it lets a visitor draw a digit.
"""

import json
import os
import subprocess
from base64 import b64encode
from io import BytesIO
from math import isqrt
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from PIL import Image
from ruamel.yaml import YAML

from isoparam.results.comparisons import Pair
from pipeline import files, parameters
from tools import findings
from tools.environment import ENVIRONMENT
from tools.plots_page import vega

FOLDER = Path("report")
SOURCES = Path(__file__).parent / "page"
PLOTS = Path("plots")
MODELS = Path("models/depths")
# How their pictures could be made of a drawing is not known.
NO_DRAWINGS = {"digits", "own"}


def main() -> None:
    """Write report/index.html, and the weights beside it if models/ exists."""
    networks = read_networks()
    page = render(draws=bool(networks))
    if networks:
        files.write(FOLDER / "networks.js", f"const networks = {json.dumps(networks)};\n")
    files.write(FOLDER / "index.html", page)
    print(f"The page is {FOLDER / 'index.html'}.")
    if not networks and parameters.read_params().data.dataset not in NO_DRAWINGS:
        print("To draw digits on it, train the networks with `dvc repro` and make the page again.")


def render(*, draws: bool) -> str:
    """The page, with a field to draw in or without; ValueError if a result is missing."""
    environment = Environment(
        loader=FileSystemLoader(SOURCES), autoescape=True, undefined=StrictUndefined
    )
    data = parameters.read_params().data
    tables, names = read_tables(), findings.class_names()
    texts = {
        name: MarkdownIt("js-default").render(getattr(findings, name)())
        for name in ("claim", "results", "trend", "pairs", "best", "sampled", "instance")
    }
    return environment.get_template("report.html.j2").render(
        **texts,
        networks=draws,
        side=isqrt(data.sizes[0]),
        test_images=findings.read_comparisons()["test_images"],
        curves={
            name: _by_epoch(tables["curves"], column, "model", form)
            for name, column, form in (
                ("validation error", "error", "{:.2%}"),
                ("validation loss", "validation_loss", "{:.4f}"),
                ("training loss", "train_loss", "{:.4f}"),
            )
        },
        views=_by_epoch(tables["instance"], "accuracy", "training", "{:.1%}"),
        zipf="zipf" in set(tables["instance"]["images"]),
        confusions=_confusions(tables["confusion"]),
        hard=hard_digits(),
        commit=commit(),
        environment=_environment(),
        parameters=files.read_text(parameters.PARAMETERS),
        learning_rates=files.read_text(parameters.LEARNING_RATES),
        stages=_stages(),
        vega=vega(),
        classes=names,
        nouns="examples" if data.dataset == "own" else "digits",
        data={name: _records(table) for name, table in tables.items()}
        | {"chosen": findings.chosen_model(), "classes": names, "verdicts": findings.VERDICTS}
        | {"noun": "class" if data.dataset == "own" else "digit"},
    )


def read_tables() -> dict[str, pd.DataFrame]:
    """What the charts show, as recorded: a table for each."""
    depth = files.read_csv(PLOTS / "depth_accuracy.csv", ("model", "depth", "accuracy"))
    depth["verdict"] = [findings.verdict(name) for name in depth["model"]]
    accuracies = (f"validation_accuracy{end}" for end in ("", "_lo", "_hi"))
    columns = ("epoch", *accuracies, "validation_loss", "train_loss")
    curves = pd.concat(
        files.read_csv(PLOTS / f"curves/{row.model}.csv", columns).assign(
            model=row.model, depth=row.depth
        )
        for row in depth.itertuples()
    )
    for error, accuracy in (("error", ""), ("error_lo", "_hi"), ("error_hi", "_lo")):
        curves[error] = 1 - curves[f"validation_accuracy{accuracy}"]
    found = findings.read_comparisons()["pairs"]
    pairs = pd.DataFrame(found, columns=Pair._fields).astype({"lo": float, "hi": float})
    # The chart shows the row minus the column.
    pairs[["difference", "lo", "hi"]] = -pairs[["difference", "hi", "lo"]]
    pairs["significant"] = [findings.is_significant(pair) for pair in found]
    confusion = files.read_csv(PLOTS / "diagnostics/confusion.csv", ("model", "label"))
    confusion = confusion.melt(["model", "label"], var_name="predicted", value_name="images")
    if parameters.read_params().data.dataset == "own":
        names = dict(enumerate(findings.class_names()))
        confusion["label"] = confusion["label"].map(names)
        confusion["predicted"] = confusion["predicted"].astype(int).map(names)
    sampled, instance = (
        pd.DataFrame.from_dict(files.read_json(findings.METRICS / f"{name}.json"), orient="index")
        for name in ("sampled", "instance")
    )
    for table in (sampled, instance):
        table["training"] = table["weighting"].map(findings.WEIGHTINGS)
    short = instance["training"].str.removeprefix("sampled, ").str.removesuffix(" weights")
    k = ["" if pd.isna(count) else f", K = {count:.0f}" for count in instance["samples"]]
    zipf = instance["images"].map({"zipf": ", Zipf"}).fillna("")
    of_run = short + k + ", " + instance["epochs"].astype(str) + " epochs" + zipf
    views = files.read_csv(PLOTS / "instance.csv", ("run", "epoch", "accuracy", "loss"))
    return {
        "depth": depth,
        "pairs": pairs,
        "curves": curves,
        "confusion": confusion,
        "sampled": sampled.rename_axis("run").reset_index(),
        "instance": views.assign(training=views["run"].map(of_run)),
    }


def hard_digits() -> list[dict[str, Any]]:
    """The test images that the most networks get wrong, as pictures, largest loss first."""
    columns = ("index", "label", "predicted", "votes", "wrong", "networks", "pixels")
    table = files.read_csv(PLOTS / "diagnostics/hard_digits.csv", columns, may_be_empty=True)
    images = [_png(pixels) if isinstance(pixels, str) else None for pixels in table["pixels"]]
    return _records(table.assign(image=images))


def read_networks() -> list[dict[str, Any]]:
    """The first seed of each model that is there, with weights of 8 bits and a scale for each unit.

    Raises:
        ValueError: if one is damaged.
    """
    params = parameters.read_params()
    if params.data.dataset in NO_DRAWINGS:
        return []
    paths = {name: MODELS / name / f"seed-{params.seeds[0]}.safetensors" for name in params.models}
    if not any(path.exists() for path in paths.values()):
        return []  # without the seconds that torch takes
    from isoparam.network.files import load_perceptron

    networks = []
    for name, path in paths.items():
        if path.exists():
            model = params.models[name]
            layers, metadata = load_perceptron(path, model.sizes(params.data))
            networks.append(
                {
                    "name": name,
                    "depth": model.depth,
                    "mean": metadata["mean"],
                    "deviation": metadata["deviation"],
                    "layers": [_rounded(weight[0].T, bias.flatten()) for weight, bias in layers],
                }
            )
    return networks


def commit() -> str:
    """The commit of this folder, and whether there are changes to it."""
    options: dict[str, Any] = {"capture_output": True, "text": True}
    options["env"] = os.environ | {"LC_ALL": "C"}
    try:
        shown = subprocess.run(["git", "log", "-1", "--format=%H, %cs"], check=False, **options)
        changed = subprocess.run(["git", "status", "--porcelain"], check=False, **options)
    except FileNotFoundError:
        return "not in git, which is not installed"
    if "dubious ownership" in shown.stderr:
        return "in git of another user, which is not read"
    if shown.returncode or changed.returncode:
        return "not in git"
    note = ", with changes that are not committed" if changed.stdout else ""
    return f"{shown.stdout.strip()}{note}"


def _rounded(weight: Any, bias: Any) -> dict[str, Any]:
    """A layer, (fan-out, fan-in) and (fan-out), as JavaScript gets it."""
    import torch

    scale = (weight.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    whole = (weight / scale[:, None]).round().to(torch.int8)
    return {
        "weights": b64encode(whole.contiguous().numpy().tobytes()).decode(),
        "scale": scale.tolist(),
        "bias": bias.tolist(),
    }


def _png(pixels: str) -> str:
    """Rows of grey pixels in hexadecimal, as the address of a picture, the lightest one white."""
    content = bytes.fromhex(pixels)
    side, most = isqrt(len(content)), max(content)
    file = BytesIO()
    Image.frombytes("L", (side, side), bytes(255 * v // most for v in content)).save(file, "png")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def _table(table: pd.DataFrame, corner: str) -> str:
    return str(table.rename_axis(index=None, columns=corner).to_html(border=0))


def _by_epoch(table: pd.DataFrame, value: str, column: str, form: str) -> str:
    """A row for each epoch, with intervals if any; what has no such epoch is left blank."""
    shown = [form.format(v).replace("%", " %") for v in table[value]]
    if f"{value}_lo" in table:
        ends = zip(table[f"{value}_lo"], table[f"{value}_hi"], strict=True)
        shown = [
            text if pd.isna(lo) else f"{text} ({100 * lo:.2f} to {100 * hi:.2f})"
            for text, (lo, hi) in zip(shown, ends, strict=True)
        ]
    cells = table.assign(shown=shown)
    wide = cells.pivot_table("shown", "epoch", column, aggfunc="first", sort=False)
    return _table(wide.sort_index().fillna(""), "epoch")


def _confusions(confusion: pd.DataFrame) -> dict[str, str]:
    return {
        str(name): _table(
            rows.pivot_table("images", "label", "predicted", sort=False).round(1),
            "true, predicted",
        )
        for name, rows in confusion.groupby("model", sort=False)
    }


def _environment() -> dict[str, str]:
    """Of the recorded run, in a line each; lists of instruction sets are long and left out."""
    if not ENVIRONMENT.exists():
        return {}
    recorded = files.read_json(ENVIRONMENT)
    packages = ", ".join(f"{name} {number}" for name, number in recorded["packages"].items())
    return {
        "Python": recorded["python"],
        "Packages": packages,
        "System": f"{recorded['system']}, {recorded['libc']}, {recorded['machine']}",
        "Processor": f"{recorded['processor']}, {recorded['cores']} cores",
    }


def _stages() -> str:
    stages = {}
    if files.LOCK.exists():
        stages = YAML(typ="safe").load(files.LOCK.read_text(encoding="utf-8"))["stages"]
    rows = [
        {"stage": name, "output": out["path"], "MD5": out["md5"]}
        for name, stage in stages.items()
        for out in stage.get("outs", [])
    ]
    table = pd.DataFrame(rows, columns=["stage", "output", "MD5"])
    return _table(table.set_index("stage"), "stage")


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON, which has no NaN; numbers keep all their digits."""
    rows: list[dict[str, Any]] = table.astype(object).where(table.notna(), None).to_dict("records")
    return rows
