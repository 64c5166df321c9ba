"""What other projects take from this one by DVC, and the papers around it."""

import json
import re
import shlex
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import typer
from conftest import ROOT, Project
from ruamel.yaml import YAML
from safetensors.torch import load_file

from isoparam.images.files import load_images
from isoparam.images.mnist import normalise
from isoparam.network.files import load_perceptron
from isoparam.network.mlp import logits

# What the example of `dvc.api` found.
TELL = """
import json
print(json.dumps([summary, parameters["data"]["dataset"]]))
"""


def read_json(name):
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def read_yaml(name):
    return YAML(typ="safe").load((ROOT / name).read_text(encoding="utf-8"))


def test_the_table_of_experiments_keeps_what_is_swept():
    text = (ROOT / "docs/use.md").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"dvc exp show .*--drop '(.+)'", text)
    columns = {
        "models.L2.width": True,
        "params.yaml:models.L2.width": True,
        "train.epochs": True,
        "learning_rates.yaml:L3": True,
        "metrics/depths/L2.json:test_accuracy": True,
        "test_accuracy": True,
        "metrics/depths/L2.json:val_accuracy": False,
        "metrics/depths/L2.json:test_lo": False,
        "models/depths/L2": False,
        "isoparam/network": False,
        "metrics/depths": False,
        "params.yaml": False,
    }
    # As DVC does it.
    assert {name: not re.match(pattern, name) for name in columns} == columns


def test_the_artifact_is_the_model_that_validation_chose():
    summary = read_json("metrics/summary.json")
    (chosen,) = (
        name
        for name, model in read_yaml("params.yaml")["models"].items()
        if model["depth"] == summary["depth"]
    )
    assert read_yaml("dvc.yaml")["artifacts"]["chosen"]["path"] == f"models/depths/{chosen}"
    text = (ROOT / "docs/use.md").read_text(encoding="utf-8")
    text = text.partition("## From another project")[2]
    assert set(re.findall(r"models/depths/(L\d)", text)) == {chosen}
    assert f"width = {summary['width']}\n" in text
    assert f"range({summary['depth'] - 1})" in text


def test_each_command_of_the_documents_is_understood(monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "train@L1")
    paths = [ROOT / "Makefile", ROOT / "dvc.yaml", ROOT / "tuning/dvc.yaml"]
    paths += [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    commands = set(re.findall(r"python -m ((?:tools|stages|benchmarks)[. ][^`|)#\n]+)", text))
    assert len(commands) > 30
    for command in commands:
        module, *arguments = shlex.split(command.replace("tools ", "tools."))
        app = typer.Typer(add_completion=False)
        app.command()(import_module(module.replace("-", "_")).main)
        try:  # raises click's UsageError at an option or an argument that there is not
            typer.main.get_command(app).make_context(command, arguments)
        except typer.Exit:
            assert "--help" in command


def test_another_project_gets_metrics_models_and_the_artifact(digits, tmp_path):
    study = digits
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    study.run("git", *identity, "tag", "--annotate", "chosen@v0.2.0", "--message", "chosen")
    # The examples, one after another in one folder.
    text = (ROOT / "docs/use.md").read_text(encoding="utf-8").split("## From another project")[1]
    text = text.split("\n## ")[0]
    quoted = text.replace("https://github.com/YOU/isoparam", shlex.quote(str(study.folder)))
    text = text.replace("https://github.com/YOU/isoparam", str(study.folder))
    commands = re.findall(r"^\$ (dvc .*)$", quoted, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        Project(tmp_path).run(*shlex.split(command))
    metrics = study.folder / "metrics/summary.json"
    assert (tmp_path / "summary.json").read_bytes() == metrics.read_bytes()
    chosen = Path(read_yaml("dvc.yaml")["artifacts"]["chosen"]["path"])
    for name in (chosen.name, "chosen"):
        files = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        assert files == {p.name: p.read_bytes() for p in (study.folder / chosen).iterdir()}
    (code,) = re.findall(r"```python\n(.*?dvc\.api.*?)```", text, re.DOTALL)
    reported = Project(tmp_path).run(sys.executable, "-c", code + TELL)
    assert json.loads(reported) == [read_json(metrics), "digits"]


def test_the_weights_are_those_of_a_sequential(digits):
    folder = digits.folder
    path = folder / "models/depths/L2/seed-0.safetensors"
    weights = load_file(path)
    sizes = [64, len(weights["0.bias"]), len(weights["2.bias"]), 10]
    first, second, last = (torch.nn.Linear(*pair) for pair in pairwise(sizes))
    network = torch.nn.Sequential(first, torch.nn.ReLU(), second, torch.nn.ReLU(), last)
    network.load_state_dict(weights)
    layers, metadata = load_perceptron(path, sizes)
    images = load_images(folder / "data/split/test.safetensors", 64, 10).images
    x = normalise(images, metadata["mean"], metadata["deviation"])
    assert torch.allclose(network(x), logits(layers, x)[0], atol=1e-4)


def test_predict_refuses_what_it_does_not_know(digits, tmp_path):
    with pytest.raises(AssertionError, match="error: the digits have 8 by 8 pixels"):
        digits.run("python", "-m", "tools", "predict", str(tmp_path / "none.png"))


def test_the_papers_can_be_read_by_those_who_look_for_them():
    citation = read_yaml("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "license", "version"} <= set(citation)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{citation["version"]}"' in project


def test_the_container_and_the_editor_find_what_make_sets_up():
    container = read_json(".devcontainer/devcontainer.json")
    target = container["postCreateCommand"].removeprefix("make ")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for of_readme in ("repro", "test"):
        assert re.search(rf"^{of_readme}:.* {re.escape(target)}$", makefile, re.MULTILINE)
    settings = read_json(".vscode/settings.json")
    python = settings["python.defaultInterpreterPath"].removeprefix("${workspaceFolder}/")
    assert python == f"{target.rpartition('/')[0]}/bin/python"
    # DVC's extension takes the interpreter of Python's; it puts no folder into settings of its own.
    assert not [v for name, v in settings.items() if name.startswith("dvc.") and "$" in str(v)]
    recommended = read_json(".vscode/extensions.json")["recommendations"]
    assert {"iterative.dvc", "ms-python.python"} <= set(recommended)
    assert container["customizations"]["vscode"]["extensions"] == recommended
