"""The honesty of the pipeline: what its stages declare is what they read."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from stages import docs
from stages.support import read_params

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
# A template's stages, without the models that they are made for.
STAGES = {name: stage.get("do", stage) for name, stage in PIPELINE.items()}


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
        if isinstance(parent, ast.Call) and ast.unparse(parent.func) == "support.find_model":
            chain.append("${key}")
        keys.add(".".join(chain))
    return keys


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_files_that_it_imports(stage):
    declared = {Path(dep) for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert declared == reached(source_of(stage))


@pytest.mark.parametrize("package", ["isoparam", "stages"])
def test_packages_run_nothing_of_their_own(package):
    """Their __init__ files are no dependencies, since nothing stands in them."""
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    assert [type(node) for node in body] == [ast.Expr]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "check"])
def test_a_stage_reads_the_parameters_that_it_declares(stage):
    declared, read = set(STAGES[stage].get("params", [])), keys_read(source_of(stage))
    undeclared = {k for k in read if not any(k == d or k.startswith(f"{d}.") for d in declared)}
    unused = {d for d in declared if not any(k == d or k.startswith(f"{d}.") for k in read)}
    assert not undeclared
    assert not unused


def test_every_parameter_is_declared_by_a_stage():
    declared = {key.split(".")[0] for stage in STAGES.values() for key in stage.get("params", [])}
    assert set(YAML(typ="safe").load(ROOT / "params.yaml")) == declared


def test_the_table_is_made_of_all_models():
    metrics = {dep for dep in STAGES["aggregate"]["deps"] if dep.startswith("metrics/")}
    assert metrics == {f"metrics/{name}.json" for name in read_params().models}


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


@pytest.mark.parametrize("stage", ["check", "download", "aggregate", "plot", "plot_diagnostics"])
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
        if not (state in {"deleted", "not in cache"} and name.startswith(kept_in_cache))
    ]
    assert not differing


@pytest.mark.parametrize("path", docs.DOCUMENTS, ids=str)
def test_documents_agree_with_the_metrics(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = path.read_text(encoding="utf-8")
    assert docs.BLOCK.search(text)
    assert docs.fill(text) == text


def test_the_comparison_in_the_readme_starts_from_the_metrics():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^metrics/L2\.json +(\w+) +(\S+) +\S+ +\S+$", text, re.MULTILINE)
    assert len(rows) > 10
    recorded = json.loads((ROOT / "metrics/L2.json").read_text(encoding="utf-8"))
    for key, shown in rows:
        expected = recorded[key]
        # DVC shows five digits.
        close = isinstance(expected, float) and abs(float(shown) - expected) <= 0.5e-5
        assert close or shown == str(expected), key


def test_links_in_documents_lead_somewhere():
    for path in ROOT.rglob("*.md"):
        if ".venv" in path.parts:
            continue
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path}: {target}"


def test_nothing_is_committed_that_should_not_be():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert "dvc.lock" in listed
    assert not [name for name in listed if re.search(r"ubyte|\.safetensors$|uv\.lock$", name)]
