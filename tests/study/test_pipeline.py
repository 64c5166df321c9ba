"""The honesty of the pipeline: what its stages declare is what they read."""

import ast
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from pipeline.parameters import read_params
from tools import docs

# Of the study and of its tuning; a template's stages without the models that they are made for.
STUDY, TUNING = (
    {name: stage.get("do", stage) for name, stage in YAML(typ="safe").load(path)["stages"].items()}
    for path in (ROOT / "dvc.yaml", ROOT / "tuning/dvc.yaml")
)
STAGES = STUDY | TUNING


def source_of(stage: str) -> Path:
    return Path(STAGES[stage]["cmd"].split()[2].replace(".", "/") + ".py")


def imported(path: Path) -> set[Path]:
    """The project's files that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        for name in names:
            candidate = Path(name.replace(".", "/") + ".py")
            if name.startswith(("isoparam.", "stages.")) and (ROOT / candidate).is_file():
                found.add(candidate)
    return found


def reached(path: Path) -> set[Path]:
    done, todo = set(), {path}
    while todo:
        done.add(path := todo.pop())
        todo |= imported(path) - done
    return done


def keys_read(path: Path) -> set[str]:
    """Keys of params.yaml that a stage's module reads, each through the name `params`."""
    tree = ast.parse((ROOT / path).read_text())
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    keys = set()
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Name) and node.id == "params"):
            continue
        if isinstance(node.ctx, ast.Store):
            continue
        chain, parent = [], parents[node]
        while isinstance(parent, ast.Attribute):
            chain.append(parent.attr)
            parent = parents[parent]
        assert chain, f"{path} hands on all of params, which hides what it reads"
        if isinstance(parent, ast.Call) and ast.unparse(parent.func) == "parameters.find_model":
            chain.append("${key}")
        keys.add(".".join(chain))
    return keys


def keys_declared(stage: str) -> set[str]:
    """Keys of params.yaml."""
    return {key for key in STAGES[stage].get("params", []) if isinstance(key, str)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_files_that_it_imports(stage):
    declared = {Path(dep) for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert declared == reached(source_of(stage))


def test_no_command_has_a_part_that_parameters_decide():
    """DVC starts commands by a shell, which would run what a name has it run."""
    assert not [stage["cmd"] for stage in STAGES.values() if "$" in stage["cmd"]]


@pytest.mark.parametrize("package", ["isoparam", "stages"])
def test_packages_run_nothing_of_their_own(package):
    """Their __init__ files are no dependencies, since nothing stands in them."""
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    assert [type(node) for node in body] == [ast.Expr]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "check"])
def test_a_stage_reads_the_parameters_that_it_declares(stage):
    declared, read = keys_declared(stage), keys_read(source_of(stage))
    undeclared = {k for k in read if not any(k == d or k.startswith(f"{d}.") for d in declared)}
    unused = {d for d in declared if not any(k == d or k.startswith(f"{d}.") for k in read)}
    assert not undeclared
    assert not unused


def test_every_parameter_is_declared_by_a_stage():
    declared = {key.split(".")[0] for stage in STAGES for key in keys_declared(stage)}
    assert set(YAML(typ="safe").load(ROOT / "params.yaml")) == declared


def test_training_depends_on_its_own_learning_rate():
    others = [key for key in STUDY["train"]["params"] if not isinstance(key, str)]
    assert others == [{"learning_rates.yaml": ["${key}"]}]
    for name in STAGES:
        source = (ROOT / source_of(name)).read_text(encoding="utf-8")
        assert ("learning_rate_of" in source) == (name in {"check", "train"})


@pytest.mark.parametrize(
    ("stage", "template"), [("aggregate", "metrics/{}.json"), ("choose", "tuning/{}.csv")]
)
def test_tables_are_made_of_all_models(stage, template):
    folder = template.split("/")[0]
    deps = {dep for dep in STAGES[stage]["deps"] if dep.startswith(f"{folder}/")}
    assert deps == {template.format(name) for name in read_params().models}


def test_the_study_does_not_run_its_tuning():
    """No stage of the study depends on what a stage of the tuning is known to write."""
    written = {name for stage in TUNING.values() for out in stage["outs"] for name in out}
    assert all(name.startswith("tuning/") for name in written)
    assert not [dep for stage in STUDY.values() for dep in stage["deps"] if dep in written]
    assert not [dep for stage in STUDY.values() for dep in stage["deps"] if "tuning" in dep]


def test_the_learning_rates_are_those_of_the_tuning():
    with (ROOT / "tuning/learning_rates.csv").open(encoding="utf-8") as file:
        chosen = {
            row["model"]: float(row["learning_rate"])
            for row in csv.DictReader(file)
            if row["chosen"] == "True"
        }
    assert chosen == YAML(typ="safe").load(ROOT / "learning_rates.yaml")


def test_all_models_are_diagnosed():
    models = {dep for dep in STAGES["diagnose"]["deps"] if dep.startswith("models/")}
    assert models == {f"models/{name}" for name in read_params().models}


def test_only_what_reports_depends_on_the_test_set():
    assert {
        name for name, stage in STAGES.items() if "data/split/test.safetensors" in stage["deps"]
    } == {"evaluate", "evaluate_sampled", "diagnose"}


def test_nothing_but_drawing_depends_on_the_diagnosis():
    assert {
        name
        for name, stage in STAGES.items()
        if any(dep.startswith("plots/diagnostics") for dep in stage["deps"])
    } == {"plot_diagnostics"}


@pytest.mark.parametrize(
    "stage", ["check", "download", "aggregate", "plot", "plot_diagnostics", "choose"]
)
def test_stages_that_need_no_torch_do_not_import_it(stage):
    module = source_of(stage).with_suffix("").as_posix().replace("/", ".")
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_library_knows_neither_stages_nor_dvc_nor_commands():
    for path in (ROOT / "isoparam").glob("*.py"):
        modules = re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.MULTILINE)
        assert not {"stages", "dvc", "typer"} & set(modules), path


def test_the_record_agrees_with_code_and_parameters():
    """`dvc status` is clean but for what is not in git: outputs in the cache, of which a fresh
    clone has none.
    """
    shown = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    kept_in_cache = ("data/", "models/")
    differing = [
        (stage, name, state)
        for stage, changes in json.loads(shown.stdout).items()
        for change in changes
        for names in (change.values() if isinstance(change, dict) else [{change: "changed"}])
        for name, state in names.items()
        if not (name.startswith(kept_in_cache) and state in ("deleted", "not in cache"))
    ]
    assert not differing


@pytest.mark.parametrize("path", docs.DOCUMENTS, ids=str)
def test_documents_agree_with_the_metrics(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = path.read_text(encoding="utf-8")
    assert docs.BLOCK.search(text)
    assert docs.fill(text) == text


def test_the_readme_tells_how_long_the_recorded_run_took():
    run = pd.read_csv(ROOT / "benchmarks/results/repro.csv")
    assert set(run["dataset"]) == {"mnist"}
    minutes = run[run["stage"] != "(again)"]["seconds"].sum() / 60
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"(\d+) minutes on two\s+processor\s+cores", text) == [f"{minutes:.0f}"]


def recorded_as(shown, expected):
    """Whether `dvc metrics diff` shows a number so; it shows five digits."""
    if isinstance(expected, float):
        return abs(float(shown) - expected) <= 0.5e-5
    return shown == str(expected)


@pytest.mark.parametrize(
    ("path", "model", "study"),
    # No metrics are kept of the wider L2.
    [("README.md", "L2", None), ("docs/results.md", "L3", "studies/regularised/metrics")],
)
def test_comparisons_in_documents_are_of_the_metrics(path, model, study):
    text = (ROOT / path).read_text(encoding="utf-8")
    rows = re.findall(rf"^metrics/{model}\.json +(\w+) +(\S+) +(\S+) +\S+$", text, re.MULTILINE)
    assert len(rows) > 10
    ours, theirs = (
        json.loads((ROOT / folder / f"{model}.json").read_text(encoding="utf-8")) if folder else {}
        for folder in ("metrics", study)
    )
    for key, before, after in rows:
        assert recorded_as(before, ours[key]), key
        assert not study or recorded_as(after, theirs[key]), key


def test_links_in_documents_lead_somewhere():
    for path in ROOT.rglob("*.md"):
        if path.relative_to(ROOT).parts[0] in {".venv", "demo"}:  # not of this folder
            continue
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path}: {target}"


def test_nothing_is_committed_that_should_not_be():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert "dvc.lock" in listed
    assert not [name for name in listed if re.search(r"ubyte|\.safetensors$|uv\.lock$", name)]
