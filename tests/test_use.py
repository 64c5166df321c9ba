"""What other projects take from this one by DVC, and the papers around it."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from isoparam.files import load_images, load_perceptron
from isoparam.mlp import logits
from isoparam.mnist import normalise

ROOT = Path(__file__).resolve().parents[1]


def read_yaml(name):
    return YAML(typ="safe").load((ROOT / name).read_text(encoding="utf-8"))


def test_the_artifact_is_the_model_that_validation_chose():
    summary = json.loads((ROOT / "metrics/summary.json").read_text(encoding="utf-8"))
    (chosen,) = (
        name
        for name, model in read_yaml("params.yaml")["models"].items()
        if model["depth"] == summary["depth"]
    )
    assert read_yaml("dvc.yaml")["artifacts"]["chosen"]["path"] == f"models/{chosen}"
    text = (ROOT / "docs/use.md").read_text(encoding="utf-8")
    assert set(re.findall(r"models/(L\d)", text)) == {chosen}
    assert f"width = {summary['width']}\n" in text
    assert f"range({summary['depth'] - 1})" in text


def test_another_project_gets_metrics_models_and_the_artifact(digits, tmp_path):
    import dvc.api

    study = digits[0]
    repo = str(study.folder)
    metrics = dvc.api.read("metrics/summary.json", repo=repo)
    assert metrics == (study.folder / "metrics/summary.json").read_text(encoding="utf-8")
    assert dvc.api.params_show(repo=repo)["data"]["dataset"] == "digits"
    study.run("dvc", "get", repo, "metrics/L1.json", "--out", str(tmp_path / "L1.json"))
    assert (tmp_path / "L1.json").read_bytes() == (study.folder / "metrics/L1.json").read_bytes()
    study.run("dvc", "get", repo, "models/L1", "--out", str(tmp_path / "L1"))
    artifact = str(tmp_path / "chosen")
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    study.run("git", *identity, "tag", "--annotate", "chosen@v0.1.0", "--message", "chosen")
    study.run("dvc", "artifacts", "get", repo, "chosen", "--out", artifact)
    for got, name in (("L1", "L1"), ("chosen", "L4")):
        files = {path.name: path.read_bytes() for path in (tmp_path / got).iterdir()}
        assert files == {p.name: p.read_bytes() for p in (study.folder / "models" / name).iterdir()}


def test_the_weights_are_those_of_a_sequential(digits):
    folder = digits[0].folder
    path = folder / "models/L2/seed-0.safetensors"
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
        digits[0].run("python", "-m", "stages.predict", str(tmp_path / "none.png"))


def test_the_papers_can_be_read_by_those_who_look_for_them():
    citation = read_yaml("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "license", "version"} <= set(citation)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{citation["version"]}"' in project
    for name in (".devcontainer/devcontainer.json", ".vscode/extensions.json"):
        assert "iterative.dvc" in (ROOT / name).read_text(encoding="utf-8")
    for path in [*ROOT.glob(".devcontainer/*.json"), *ROOT.glob(".vscode/*.json")]:
        json.loads(path.read_text(encoding="utf-8"))
