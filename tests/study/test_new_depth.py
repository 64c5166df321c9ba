"""A depth more is a line in each of two files of parameters, and none in dvc.yaml."""

import json
import shutil

from conftest import Project


def ran(output):
    return [line.split("'")[1] for line in output.splitlines() if "Running stage" in line]


def test_a_depth_more_is_two_lines_and_its_results_are_never_stale(few, tmp_path):
    shutil.copytree(few.folder, tmp_path / "study", symlinks=True)
    project = Project(tmp_path / "study")
    params, rates = (project.folder / name for name in ("params.yaml", "learning_rates.yaml"))
    text = params.read_text(encoding="utf-8")
    first = next(line for line in text.splitlines(keepends=True) if line.lstrip().startswith("L1:"))
    indent = first[: first.index("L1")]
    params.write_text(text.replace(first, f"{indent}L9: {{depth: 9, width: 30}}\n{first}"))
    rates.write_text(rates.read_text() + "L9: 0.01\n")

    new = ["train@L9", "evaluate@L9"]
    later = ["aggregate", "plot"]
    assert ran(project.run("dvc", "repro")) == ["check", *new, *later]
    table = project.folder / "plots/depth_accuracy.csv"
    before = table.read_bytes()
    assert b"\nL9,9,30," in before

    rates.write_text(rates.read_text().replace("L9: 0.01", "L9: 0.02"))
    assert ran(project.run("dvc", "repro")) == ["check", *new, *later]
    assert table.read_bytes() != before
    # Or the folder of all models would be there in a clone that has none, and look like a change.
    assert not list((project.folder / "models").rglob(".gitignore"))
    shown = json.loads(project.run("dvc", "metrics", "show", "--json"))
    assert {*shown[""]["data"]} == {
        f"metrics/{name}.json" for name in ("depths/L1", "depths/L2", "depths/L9", "summary")
    }
