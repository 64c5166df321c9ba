"""The honesty of the pipeline: what its stages declare is what they read."""

import ast
import csv
import json
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from pipeline.parameters import read_params
from tools import docs

FILES = [ROOT / "dvc.yaml", ROOT / "tuning/dvc.yaml"]
# Of the study and of its tuning; a template's stages without the models that they are made for.
STUDY, TUNING = (
    {name: stage.get("do", stage) for name, stage in YAML(typ="safe").load(path)["stages"].items()}
    for path in FILES
)
STAGES = STUDY | TUNING

# Which rooms a room imports from, beside itself.
LIBRARY = {
    "isoparam/budget.py": set(),
    "isoparam/images": set(),
    "isoparam/network": {"isoparam/budget.py", "isoparam/images"},
    "isoparam/sampled_softmax": {"isoparam/network"},
    "isoparam/sampled_study": {"isoparam/images", "isoparam/network", "isoparam/sampled_softmax"},
    "isoparam/results": {"isoparam/network"},
    "isoparam/figures": set(),
}
ARROWS = LIBRARY | {
    "isoparam/__init__.py": set(),
    "pipeline": {"isoparam/budget.py", "isoparam/images", "isoparam/network"},
    "stages": {*LIBRARY, "pipeline"},
    "tools": {*LIBRARY, "pipeline"},
}
MODULES = sorted(
    path.relative_to(ROOT)
    for folder in {room.split("/")[0] for room in ARROWS}
    for path in (ROOT / folder).rglob("*.py")
)
# What the schema of params.yaml imports, so that each stage that reads parameters does. Here the
# three check and describe: they turn down parameters, whose content is a dependency of each stage
# that it reaches, and compute nothing. A stage that computes with them declares them.
OF_THE_SCHEMA = {
    "isoparam/budget.py",  # the least budget that the depths fit into
    "isoparam/images/datasets.py",  # pixels and classes, for that budget
    "isoparam/network/recipe.py",  # the type that the section `train` has
}


def room_of(path: Path) -> str:
    """As dvc.yaml names it: a folder, or a file that stands in isoparam itself."""
    return "/".join(path.parts[: 2 if path.parts[0] == "isoparam" else 1])


@cache
def imported(path: Path) -> set[Path]:
    """The project's files that a module imports, wherever in it, without their packages."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        parts = [name.replace(".", "/") for name in names]
        found |= {Path(part + end) for part in parts for end in (".py", "/__init__.py")}
    return found & set(MODULES)


def reached(starts: set[Path]) -> set[Path]:
    """All that is loaded from modules on; with a module the packages that it is in."""
    done, todo = set(), set(starts)
    while todo:
        done.add(path := todo.pop())
        packages = {folder / "__init__.py" for folder in path.parents} & set(MODULES)
        todo |= (imported(path) | packages) - done
    return done


def source_of(stage: str) -> Path:
    return Path(STAGES[stage]["cmd"].split()[2].replace(".", "/") + ".py")


def declared(stage: str) -> set[str]:
    """The rooms of isoparam among a stage's dependencies."""
    return {dep for dep in STAGES[stage]["deps"] if dep.startswith("isoparam")}


def library_of(stage: str) -> set[str]:
    """The rooms that a stage's own code needs: what it imports, and what that imports."""
    own = {path for path in imported(source_of(stage)) if path.parts[0] == "isoparam"}
    return {room_of(path) for path in reached(own)} - {"isoparam/__init__.py"}


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
def test_a_stage_declares_its_own_file_and_the_rooms_that_it_imports_from(stage):
    assert {dep for dep in STAGES[stage]["deps"] if dep.startswith(("isoparam", "stages"))} == {
        str(source_of(stage)),
        *library_of(stage),
    }


@pytest.mark.parametrize("stage", STAGES)
def test_what_runs_a_stage_imports_nothing_else_that_decides_numbers(stage):
    """All of isoparam that is loaded through pipeline/ is declared, or checks and describes."""
    through = {path for path in imported(source_of(stage)) if path.parts[0] == "pipeline"}
    assert through
    loaded = {str(path) for path in reached(through) if path.parts[0] == "isoparam"}
    loaded -= OF_THE_SCHEMA
    undeclared = {path for path in loaded if not path.startswith(tuple(declared(stage)))}
    # These run nothing: test_packages_run_nothing_of_their_own.
    assert not {path for path in undeclared if not path.endswith("/__init__.py")}


def test_what_checks_and_describes_is_not_more_than_that():
    assert {
        str(path)
        for path in reached({Path("pipeline/schema.py")})
        if path.parts[0] == "isoparam" and path.name != "__init__.py"
    } == OF_THE_SCHEMA


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_arrows_run_down_only(path):
    room = room_of(path)
    rooms = {room_of(other) for other in imported(path)} - {room}
    assert rooms <= ARROWS[room]


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0] == "stages"], ids=str)
def test_a_stage_imports_no_stage(path):
    assert not {other for other in imported(path) if other.parts[0] == "stages"}


def test_imports_run_in_no_circle():
    TopologicalSorter({path: imported(path) for path in MODULES}).prepare()


def test_the_library_knows_neither_dvc_nor_commands():
    for path in MODULES:
        if path.parts[0] == "isoparam":
            text = (ROOT / path).read_text(encoding="utf-8")
            modules = re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE)
            assert not {"dvc", "typer", "rich"} & set(modules), path


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name == "__init__.py"], ids=lambda path: path.parent
)
def test_packages_run_nothing_of_their_own(path):
    """They are loaded with each of their modules; only sampled_softmax names what others import."""
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    kinds = [type(node) for node in body]
    if path.parent == Path("isoparam/sampled_softmax"):
        assert set(kinds) == {ast.Expr, ast.ImportFrom, ast.Assign}
    elif path.parent in {Path("pipeline"), Path("tools")}:  # a module of theirs is no command
        assert ast.unparse(body[-1]) == f"refuse_to_run('{path.parent}')"
    elif path.parent == Path("stages"):  # what a stage imports may find too little memory
        assert ast.unparse(body[1:]) == "import pipeline"
    else:
        assert kinds == [ast.Expr]


def test_dvc_yaml_is_read_in_one_sitting():
    assert len(FILES[0].read_text(encoding="utf-8").splitlines()) <= 185
    for name, stage in STAGES.items():
        assert stage["desc"], name


def test_no_command_has_a_part_that_parameters_decide():
    """DVC starts commands by a shell, which would run what a name has it run."""
    assert not [stage["cmd"] for stage in STAGES.values() if "$" in stage["cmd"]]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "check"])
def test_a_stage_reads_the_parameters_that_it_declares(stage):
    keys, read = keys_declared(stage), keys_read(source_of(stage))
    undeclared = {k for k in read if not any(k == d or k.startswith(f"{d}.") for d in keys)}
    unused = {d for d in keys if not any(k == d or k.startswith(f"{d}.") for k in read)}
    assert not undeclared
    assert not unused


def test_every_parameter_is_declared_by_a_stage():
    keys = {key.split(".")[0] for stage in STAGES for key in keys_declared(stage)}
    assert set(YAML(typ="safe").load(ROOT / "params.yaml")) == keys


def test_training_depends_on_its_own_learning_rate():
    others = [key for key in STUDY["train"]["params"] if not isinstance(key, str)]
    assert others == [{"learning_rates.yaml": ["${key}"]}]
    for name in STAGES:
        source = (ROOT / source_of(name)).read_text(encoding="utf-8")
        assert ("learning_rate_of" in source) == (name in {"check", "train"})


def test_tables_are_made_of_all_models():
    """A folder takes up a new model by itself; the tuning's tables are listed."""
    assert {"metrics/depths", "models/predictions"} <= set(STUDY["aggregate"]["deps"])
    assert "models/depths" in STUDY["diagnose"]["deps"]
    deps = {dep for dep in TUNING["choose"]["deps"] if dep.startswith("tuning/")}
    assert deps == {f"tuning/{name}.csv" for name in read_params().models}


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


@pytest.mark.parametrize("path", docs.pages(ROOT), ids=str)
def test_documents_agree_with_the_metrics(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = path.read_text(encoding="utf-8")
    assert docs.BLOCK.search(text)
    assert docs.fill(text) == text


def test_each_block_is_in_a_document():
    texts = [path.read_text(encoding="utf-8") for path in docs.pages(ROOT)]
    assert {name for text in texts for _, name, _ in docs.BLOCK.findall(text)} == {*docs.BLOCKS}


def test_the_readme_says_how_long_the_recorded_run_took():
    run = pd.read_csv(ROOT / "benchmarks/results/repro.csv")
    assert set(run["dataset"]) == {"mnist"}
    minutes = run[run["stage"] != "(again)"]["seconds"].sum() / 60
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"(\d+) minutes on two\s+Zen 5 cores", text) == [f"{minutes:.0f}"]


def recorded_as(shown, expected):
    """Whether `dvc metrics diff` shows a number so; it shows five digits."""
    if isinstance(expected, float):
        return abs(float(shown) - expected) <= 0.5e-5
    return shown == str(expected)


def test_comparisons_in_documents_are_of_the_metrics():
    """No metrics are kept of the wider L2 of the example."""
    text = (ROOT / "docs/use.md").read_text(encoding="utf-8")
    rows = re.findall(r"^metrics/depths/L2\.json +(\w+) +(\S+) +\S+ +\S+$", text, re.MULTILINE)
    assert len(rows) > 5
    metrics = json.loads((ROOT / "metrics/depths/L2.json").read_text(encoding="utf-8"))
    for key, shown in rows:
        assert recorded_as(shown, metrics[key]), key


def test_nothing_is_committed_that_should_not_be():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert "dvc.lock" in listed
    assert not [name for name in listed if re.search(r"ubyte|\.safetensors$|uv\.lock$", name)]
