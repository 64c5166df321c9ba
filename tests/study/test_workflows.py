"""The workflows of .github, as far as they can be tried without GitHub."""

import json
import os
import re
import shutil
import subprocess
import tomllib

import pytest
from conftest import ROOT, Project
from ruamel.yaml import YAML

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FILES = [*WORKFLOWS, *sorted((ROOT / ".github/actions").glob("*/action.yml"))]


def load(path):
    """YAML 1.2, in which the key `on` is a text."""
    return YAML(typ="safe").load(path)


def steps_of(path):
    document = load(path)
    if "runs" in document:
        return document["runs"]["steps"]
    return [step for job in document["jobs"].values() for step in job["steps"]]


def test_there_are_workflows():
    assert [path.name for path in WORKFLOWS] == ["pull-request.yml", "study.yml", "tests.yml"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_are_bash_without_parts_that_others_write(path):
    """A `${{` in a command would let a branch's name or a parameter be run as one."""
    commands = [step["run"] for step in steps_of(path) if "run" in step]
    assert commands
    for command in commands:
        assert "${{" not in command
        subprocess.run(["bash", "-n"], input=command, check=True, text=True)
        for name in re.findall(r"\bcluster/[\w/]+", command):
            assert os.access(ROOT / name, os.X_OK), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_actions_are_pinned(path):
    text = path.read_text(encoding="utf-8")
    used = re.findall(r"uses: (.+)", text)
    assert len(used) == len([step for step in steps_of(path) if "uses" in step])
    for name in used:
        if name.startswith("$/"):  # of this repository, at the commit that runs
            assert (ROOT / name.removeprefix("$/") / "action.yml").exists()
        else:
            assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", name), name


@pytest.mark.parametrize(
    "command",
    [
        "zizmor -q --offline --strict-collection --persona=auditor .",
        "check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*",
        "check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/*",
        "check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml",
    ],
    ids=lambda command: command.split()[-1],
)
def test_the_workflows_are_valid_and_without_known_weaknesses(command):
    Project(ROOT).run("bash", "-c", command)


INSTALL = re.compile(
    r"\b(?:pip3?|uv|pipx|uvx|npm|npx|conda)\s+(?:pip\s+)?(?:install|sync|add|run|exec)\b"
)


def test_every_install_is_from_the_lock_with_hashes():
    """In all that machines run, and all that a reader without make is to type for the pipeline."""
    listed = Project(ROOT).run("git", "ls-files", "-z").split("\0")
    scripts = [ROOT / name for name in listed if re.match(r"(Makefile|\.\w+/|cluster/)", name)]
    lines = [
        line
        for path in [*scripts, ROOT / "README.md", ROOT / "docs/use.md"]
        for line in path.read_text(encoding="utf-8").splitlines()
        if INSTALL.search(line)
    ]
    assert lines == ["$ pip install --require-hashes -r requirements.lock"]


def test_the_lock_has_a_hash_for_each_package_and_all_that_the_extras_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["pipeline"], *extras["remotes"], *extras["test"]]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    packages = re.findall(
        r"^([\w.-]+)==[^\n]*\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)*)", lock, re.MULTILINE
    )
    names = re.findall(r"^[\w.-]+(?===)", lock, re.MULTILINE)
    assert [name for name, hashes in packages if not hashes] == []
    assert [name for name, _ in packages] == names
    assert {re.split(r"[>=<]", each)[0].replace(".", "-") for each in wanted} <= {*names}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_have_few_rights_an_end_and_others_that_exist(path):
    document = load(path)
    assert document["permissions"] == {"contents": "read"}
    for name, job in document["jobs"].items():
        assert job.get("needs") in {None, *document["jobs"]}
        assert job["timeout-minutes"] <= 120
        writes = {key for key, right in job.get("permissions", {}).items() if right == "write"}
        assert writes == ({"pull-requests"} if name == "compare" else set())
        assert ("secrets." in json.dumps(job)) == (job.get("environment") == "study")
    assert document["concurrency"]["group"].startswith("${{ github.workflow }}")
    text, jobs = path.read_text(encoding="utf-8"), document["jobs"]
    for job, output in re.findall(r"needs\.(\w+)\.outputs\.(\w+)", text):
        assert output in jobs[job]["outputs"]
    for step in re.findall(r"steps\.(\w+)\.outputs", text):
        assert [each for job in jobs.values() for each in job["steps"] if each.get("id") == step]


def run_step(project, workflow, name, **environment: str):
    """Run a step's command in a project as GitHub does; what it wrote into GitHub's files."""
    [step] = [step for step in steps_of(ROOT / workflow) if step.get("id") == name]
    files = {name: project.folder / f".git/{name}" for name in ("OUTPUT", "STEP_SUMMARY")}
    github = {f"GITHUB_{name}": str(path) for name, path in files.items()}
    project.run("bash", "-e", "-c", step["run"], **github, **environment)
    return [path.read_text(encoding="utf-8") for path in files.values() if path.exists()]


def test_the_study_has_a_job_for_each_stage_that_trains(few):
    [output] = run_step(few, ".github/workflows/study.yml", "trainings")
    name, _, value = output.partition("=")
    assert name == "stages"
    assert json.loads(value) == ["train@L1", "train@L2", "sampled"]


def test_a_pull_request_is_reported_what_it_changes(few, tmp_path):
    """Against where it left main, which has gone on, and from what is in git alone."""
    folder = tmp_path / "study"
    few.run("git", "clone", "--quiet", str(few.folder), str(folder))
    project = Project(folder)
    for name in ("metrics", "plots"):
        shutil.copytree(few.folder / name, folder / name, dirs_exist_ok=True)
    project.commit("results")
    project.run("git", "switch", "--quiet", "--create", "slower")
    for name, key in (("metrics/depths/L1.json", "test_accuracy"), ("params.yaml", "batch_size")):
        path = folder / name
        text = re.sub(rf"({key}\W+)[\d.]+", r"\g<1>2", path.read_text(encoding="utf-8"), count=1)
        path.write_text(text, encoding="utf-8")
    project.commit("slower")
    project.run("git", "switch", "--quiet", "main")
    (folder / "metrics/depths/L2.json").unlink()
    project.commit("main goes on")
    project.run("git", "switch", "--quiet", "slower")
    [summary] = run_step(
        project,
        ".github/workflows/pull-request.yml",
        "compare",
        BASE="main",
        REPOSITORY="https://example.org/a/study",
    )
    assert summary == (folder / "report.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in summary.splitlines() if line.startswith("| ")]
    cells = {tuple(cell.strip() for cell in row) for row in rows}
    assert ("params.yaml", "train.batch_size", "32", "2") in cells
    assert {row[:2] for row in cells if row[0].startswith("metrics")} == {
        ("metrics/depths/L1.json", "test_accuracy")
    }
    commit = project.run("git", "rev-parse", "HEAD").strip()
    assert f"https://example.org/a/study/blob/{commit}/plots/depth_accuracy.png" in summary
