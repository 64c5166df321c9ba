"""The whole pipeline end to end on real digits: the same bits, and what DVC makes of it."""

import csv
import json
import re
import shutil
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Project, other_circumstances, slow
from ruamel.yaml import YAML

from isoparam.network import bits
from tools import guard

MODELS = [*guard.CHANGES["models",]]
RECORDED = ("dvc.lock", "metrics", "plots", "models", "data")


def test_two_runs_give_the_same_bytes_in_default_mode(few, tmp_path):
    few.run("git", "clone", "--quiet", ".", str(tmp_path / "with spaces, ä"))
    again = Project(tmp_path / "with spaces, ä")
    with other_circumstances():
        again.run("dvc", "repro")
    first, second = few.content(*RECORDED), again.content(*RECORDED)
    assert len(first) > 20
    assert set(first) == set(second)
    assert [name for name in first if first[name] != second[name]] == []


def recorded_and_found(digits: Project) -> tuple[guard.Record, guard.Record]:
    record = guard.read_record()
    if reason := guard.not_comparable(record):
        pytest.skip(reason)
    return record, guard.outputs(digits.folder)


def test_the_guard_all_outputs_are_the_recorded_ones(digits):
    recorded, found = map(guard.without_figures, recorded_and_found(digits))
    assert guard.differences(recorded, found) == []


def test_the_guard_all_figures_are_the_recorded_ones(digits):
    recorded, found = recorded_and_found(digits)
    if reason := guard.figures_not_comparable(recorded):
        pytest.skip(reason)
    figures = [
        {path: digest for path, digest in record["hashes"].items() if path.endswith(".png")}
        for record in (recorded, found)
    ]
    assert len(figures[0]) == 9
    assert figures[0] == figures[1]


@pytest.fixture
@slow
def tampered(digits, tmp_path):
    """A copy of the finished study, whose code a test changes."""
    shutil.copytree(digits.folder, tmp_path / "tampered", symlinks=True)
    return Project(tmp_path / "tampered")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "old", "new", "stage", "expected"),
    [
        (
            "pipeline/files.py",
            "indent=2",
            "indent=1",
            "aggregate",
            r"metrics/(comparisons|summary)\.json, line 2: ",
        ),
        (
            "pipeline/files.py",
            "index=False",
            "index=False, float_format='%.11g'",
            "aggregate",
            r"plots/depth_accuracy\.csv, line 2, column \w+: ",
        ),
        (
            "pipeline/schema.py",
            "learning_rate=learning_rate,",
            "learning_rate=learning_rate * (1 + 2**-20),",
            "train@L0",
            r"models/depths/L0/(seed-[078]\.safetensors|history\.csv): another hash",
        ),
    ],
)
def test_the_guard_sees_a_change_of_what_no_stage_depends_on(
    digits, tampered, name, old, new, stage, expected
):
    edit(tampered.folder / name, old, new)
    tampered.run("dvc", "status", "--quiet", stage)  # it fails where the stage is stale
    tampered.run("python", "-m", *f"stages.{stage}".replace("@", " ").split(), **bits.STRICT)
    found = guard.differences(guard.outputs(digits.folder), guard.outputs(tampered.folder))
    assert found
    assert [line for line in found if not re.match(expected, line)] == []


def test_figures_say_nothing_of_when_and_by_what_they_were_drawn(digits):
    figures = {
        name: content for name, content in digits.content("plots").items() if name.endswith(".png")
    }
    assert len(figures) == 8
    for content in figures.values():
        kinds, start = set(), 8
        while start < len(content):
            kinds.add(content[start + 4 : start + 8])
            start += 12 + int.from_bytes(content[start : start + 4], "big")
        assert kinds <= {b"IHDR", b"pHYs", b"PLTE", b"IDAT", b"IEND"}


def test_metrics_have_the_same_keys_and_sane_values(digits):
    files = digits.content("metrics")
    metrics = {
        name: json.loads(content)
        for name, content in files.items()
        if re.fullmatch(r"metrics/(depths/L\d|summary)\.json", name)
    }
    assert len(metrics) == len(MODELS) + 1
    assert len({tuple(values) for values in metrics.values()}) == 1
    for name, values in metrics.items():
        assert values["test_lo"] <= values["test_accuracy"] <= values["test_hi"], name
        assert len(values["test_accuracies"]) == values["seeds"] == 3
        assert values["on_budget"] == (values["depth"] > 0)
    # Ten classes: chance is 0.1, and three epochs are enough for the shallow ones.
    assert all(
        metrics[f"metrics/depths/L{depth}.json"]["test_accuracy"] > 0.8 for depth in range(4)
    )


def test_the_diagnosis_agrees_with_the_evaluation(digits):
    files = digits.content("plots/diagnostics", "metrics")
    tables = {
        name: list(csv.DictReader(StringIO(files[f"plots/diagnostics/{name}.csv"].decode())))
        for name in ("summary", "confusion")
    }
    assert [row["model"] for row in tables["summary"]] == MODELS
    for row in tables["summary"]:
        metrics = json.loads(files[f"metrics/depths/{row['model']}.json"])
        # Losses of the same weights, by products of matrices of another shape in float32.
        assert float(row["test_loss"]) == pytest.approx(metrics["test_loss"], rel=1e-5)
        right = sum(
            float(cells[cells["label"]])
            for cells in tables["confusion"]
            if cells["model"] == row["model"]
        )
        accuracy = right / int(row["test_images"])
        assert accuracy == pytest.approx(metrics["test_accuracy"], abs=1e-12)


def test_the_summary_is_the_model_with_the_best_validation_accuracy(digits):
    files = digits.content("metrics")
    metrics = [json.loads(files[f"metrics/depths/{name}.json"]) for name in MODELS]
    assert json.loads(files["metrics/summary.json"]) == max(
        metrics, key=lambda values: values["val_accuracy"]
    )


def test_a_second_repro_does_nothing(digits):
    before = digits.content("dvc.lock", "metrics", "plots")
    assert "Data and pipelines are up to date" in digits.run("dvc", "repro")
    assert digits.content("dvc.lock", "metrics", "plots") == before


class Branch(NamedTuple):
    project: Project
    status: str
    output: str


@pytest.fixture(scope="module")
@slow
def wider(digits, tmp_path_factory) -> Branch:
    """A branch on which L3 is wider than its budget, in a copy with its cache."""
    folder = tmp_path_factory.mktemp("wider") / "project"
    shutil.copytree(digits.folder, folder, symlinks=True)
    project = Project(folder)
    project.run("git", "switch", "--quiet", "--create", "wider")
    yaml = YAML()
    document = yaml.load(folder / "params.yaml")
    document["models"]["L3"]["width"] += 10
    yaml.dump(document, folder / "params.yaml")
    status = project.run("dvc", "status", "--json")
    output = project.run("dvc", "repro", **bits.STRICT)
    project.commit("L3 is wider")
    return Branch(project, status, output)


def test_a_width_retrains_its_own_model_alone(wider):
    # The tuning was never run there.
    assert {name for name in json.loads(wider.status) if not name.startswith("tuning/")} == {
        "check",
        "train@L3",
        "evaluate@L3",
        "aggregate",
        "diagnose",
    }
    assert wider.output.count("> python -m stages.train") == 1
    assert "Running stage 'train@L3'" in wider.output
    assert "> python -m stages.plot" in wider.output
    metrics = json.loads((wider.project.folder / "metrics/depths/L3.json").read_text())
    assert not metrics["on_budget"]


def test_branches_can_be_compared_on_a_clone_without_cache(wider, tmp_path):
    wider.project.run("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("git", "branch", "main", "origin/main")
    assert not (clone.folder / ".dvc/cache").exists()

    changed = json.loads(clone.run("dvc", "metrics", "diff", "main", "wider", "--json"))
    assert "metrics/depths/L3.json" in changed
    assert changed["metrics/depths/L3.json"]["parameters"]["diff"] > 0
    assert "metrics/depths/L2.json" not in changed

    clone.run("dvc", "plots", "diff", "main", "wider")
    page = (clone.folder / "dvc_plots/index.html").read_text()
    first, second = page.index("Accuracy against depth"), page.index("L1 (mean, 95 % interval)")
    assert first < second
    for anchor in ('"rev": "main"', '"rev": "wider"', "accuracy_lo"):
        assert anchor in page[first:second]
    assert "DVC_METRIC" not in page


def test_the_table_keeps_all_digits(digits):
    files = digits.content("plots", "metrics")
    rows = {
        row["model"]: row
        for row in csv.DictReader(StringIO(files["plots/depth_accuracy.csv"].decode()))
    }
    for name, row in rows.items():
        metrics = json.loads(files[f"metrics/depths/{name}.json"])
        assert float(row["accuracy"]) == metrics["test_accuracy"]
        assert float(row["accuracy_lo"]) == metrics["test_lo"]


def test_a_misspelt_parameter_stops_everything(digits, tmp_path):
    clone = tmp_path / "clone"
    digits.run("git", "clone", "--quiet", ".", str(clone))
    path = clone / "params.yaml"
    path.write_text(path.read_text() + "\nsseeds: [1]\n")
    with pytest.raises(AssertionError) as failure:
        Project(clone).run("dvc", "repro")
    output = str(failure.value)
    assert "error: params.yaml: sseeds: there is no such parameter" in output
    assert "Traceback" not in output
    assert "stages.train" not in output
