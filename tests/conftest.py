"""Copies of the project that tests may change, and the study on digits run in one of them."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import browser as browser_
import pytest
from filelock import FileLock
from ruamel.yaml import YAML

from isoparam.network import bits
from pipeline import processes
from tools import demo, guard

ROOT = Path(__file__).parents[1]

# For torch, which reads it when it is loaded, and for all that tests start: threads wait for each
# other at small matrices, minutes on a busy machine.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

# A folder with MNIST's files, or None.
_FOLDERS = os.environ.get("ISOPARAM_DATA"), ROOT.parent / "shared/mnist"
GENUINE = next((Path(each).resolve() for each in _FOLDERS if each and Path(each).is_dir()), None)

# What tests of other things put into a params.yaml, which must be whole.
SAMPLED_SECTIONS: dict[str, Any] = {
    "tuning": {"seeds": [9], "linear": [0.1], "hidden": [0.1, 0.2]},
    "sampled": {
        "epochs": 1,
        "batch_size": 8,
        "warmup": 0.1,
        "runs": {"full": {"weighting": "full", "learning_rate": 0.1}},
    },
    "instance": {
        "seed": 0,
        "shift": 1,
        "noise": 0.3,
        "hidden": 8,
        "features": 4,
        "batch_size": 8,
        "class_rate": 1.0,
        "warmup": 0.1,
        "momentum": 0.9,
        "exponent": 0.75,
        "views": 8,
        "evaluations": 1,
        "runs": {"full": {"weighting": "full", "learning_rate": 0.1, "epochs": 1}},
    },
}
# JSON is YAML.
SAMPLED_YAML = "".join(
    f"{name}: {json.dumps(section)}\n" for name, section in SAMPLED_SECTIONS.items()
)


# The study on digits with two models and few stages, for tests of how stages are run.
FEW = guard.CHANGES | {
    ("train", "strict"): False,
    ("seeds",): [0, 7],
    ("models",): {f"L{depth}": {"depth": depth, "width": 1} for depth in (1, 2)},
    ("sampled",): SAMPLED_SECTIONS["sampled"],
}
FEW_STAGES = {"check", "download", "split", "train", "evaluate", "aggregate", "plot", "sampled"}


def slow(fixture: Callable[..., Any]) -> Callable[..., Any]:
    """Mark the tests that use a fixture, directly or not: `make test` leaves them out.

    Such a fixture runs stages in a copy of the project, or other programs that take long.
    """
    fixture.__dict__["slow"] = True
    return fixture


def _definitions(item: pytest.Item) -> dict[str, Any]:
    """The fixtures that a test uses, directly or not, by name."""
    definitions: dict[str, Any] = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    return definitions


def pytest_sessionstart() -> None:
    """Threads are set in time."""
    assert "torch" not in sys.modules


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's tier follows from the fixtures that it uses."""
    for item in items:
        definitions = _definitions(item)
        slow_fixture = any(hasattr(f.func, "slow") for used in definitions.values() for f in used)
        # `make test` runs the study on digits once, for its guard and what stands beside it.
        if slow_fixture or ("digits" in definitions and item.path.name != "test_digits.py"):
            item.add_marker("slow")
    # Files are shared out in this order: the one that makes the study on digits for all; those that
    # do not wait for it, first the ones of few and long tests; those that do; those of quick tests.
    slow_tests = Counter(item.path for item in items if item.get_closest_marker("slow"))
    on_digits = {item.path for item in items if "digits" in _definitions(item)}

    def turn(item: pytest.Item) -> tuple[bool, bool, bool, int]:
        makes_it = item.path.name == "test_digits.py"
        quick = item.path not in slow_tests
        return not makes_it, quick, item.path in on_digits, slow_tests[item.path]

    items.sort(key=turn)


class Project:
    """A copy of the project in a folder of its own, with its own git history and DVC cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, **environment: str) -> str:
        """Run a command; its output, of which a failure shows all."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | {"PATH": path} | environment,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def commit(self, message: str) -> None:
        identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        self.run("git", "add", "--all")
        self.run("git", *identity, "commit", "--quiet", "--allow-empty", "--message", message)

    def content(self, *names: str) -> dict[str, bytes]:
        """All files of some folders, and some files, by name."""
        paths = [self.folder / name for name in names]
        files = [p for path in paths for p in ([path] if path.is_file() else path.rglob("*"))]
        return {
            str(p.relative_to(self.folder)): p.read_bytes() for p in sorted(files) if p.is_file()
        }


def make_project(folder: Path, changes: Mapping[tuple[str, ...], Any], rate: float) -> Project:
    """A copy with changed parameters, widths for its budget, and a first commit."""
    with chdir(ROOT):  # a test that works in another folder may be the first to ask
        demo.make(folder, dict(changes), rate)
    return Project(folder)


@pytest.fixture(autouse=True)
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No function under test replaces the process of the tests, which would end them unseen."""

    def execve(*command: object) -> None:
        raise AssertionError(f"{command} would replace the process of the tests")

    monkeypatch.setattr(os, "execve", execve)


@pytest.fixture
@slow
def run_benchmark() -> Callable[..., str]:
    """Runs a benchmark of the project; what it prints."""

    def run(name: str, *arguments: str) -> str:
        return Project(ROOT).run("python", "-m", f"benchmarks.{name}", *arguments)

    return run


@pytest.fixture
@slow
def python() -> Callable[..., str]:
    """Runs a new Python, which imports torch anew, with some arguments; what it prints."""

    def run(*arguments: str, folder: Path = ROOT, **environment: str) -> str:
        return Project(folder).run("python", *arguments, **environment)

    return run


@pytest.fixture
@slow
def new_study(tmp_path: Path) -> Callable[..., Project]:
    """Makes a study of a test's own, of which it runs stages."""
    return partial(make_project, tmp_path / "study")


@pytest.fixture
@slow
def mnist() -> Path:
    """A folder with MNIST's files, for a test that runs stages on them."""
    if GENUINE is None:
        pytest.skip("needs a folder with MNIST's files")
    return GENUINE


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jobs are done in the process of the test, one after another, which saves seconds."""
    from isoparam.images.files import load_training_data

    def one_after_another(work: Callable[..., Any], jobs: list[Any], **options: Any) -> list[Any]:
        results = []
        for job in jobs:
            while (result := work(job, options["advance"])) is None:
                pass
            results.append(result)
        return results

    monkeypatch.setattr(processes, "run_all", one_after_another)
    load_training_data.cache_clear()  # kept by name of the folder, in a process that has one study
    yield
    load_training_data.cache_clear()


@contextmanager
def other_circumstances() -> Iterator[None]:
    """What no output may depend on is unlike what a user or the record has."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "ISOPARAM_WORKERS": "8",
            "OMP_NUM_THREADS": "4",
            "TZ": "Asia/Tokyo",
            "LC_ALL": "C",
        }.items():
            patch.setenv(name, value)
        umask = os.umask(0o077)
        yield
        os.umask(umask)


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Project:
    """A copy of what `make` leaves in a folder: the first process to need it makes it for all."""
    own = factory.getbasetemp()
    made = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / f"{name} of all"
    with FileLock(made.with_suffix(".lock")):
        if not made.exists():
            partial = made.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            make(partial)
            partial.rename(made)
    folder = factory.mktemp(name) / "with spaces, ä"
    shutil.copytree(made, folder, symlinks=True)
    return Project(folder)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The whole study on digits, short and in strict mode, under other circumstances."""

    def make(folder: Path) -> None:
        project = make_project(folder, guard.CHANGES, demo.LEARNING_RATE)
        with other_circumstances():
            guard.run_stages(folder)
        project.commit("digits")

    return made_once(tmp_path_factory, "digits", make)


@pytest.fixture(scope="module")
def strict() -> Iterator[None]:
    """The instructions of strict mode, without which each stage on digits would start twice."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bits.STRICT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
@slow
def few(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The study with few models and stages, run by a plain `dvc repro`; its commit is before."""

    def make(folder: Path) -> None:
        project = make_project(folder, FEW, demo.LEARNING_RATE)
        path, yaml = folder / "dvc.yaml", YAML()
        document = yaml.load(path)
        for name in set(document["stages"]) - FEW_STAGES:
            del document["stages"][name]
        yaml.dump(document, path)
        project.commit("few")
        project.run("dvc", "repro")

    return made_once(tmp_path_factory, "few", make)


@pytest.fixture(scope="session", params=browser_.FOUND or [None])
@slow
def browser(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[browser_.Browser]:
    """Each Chromium of this machine in turn."""
    if request.param is None:
        pytest.skip(f"no Chromium is found under the names {', '.join(browser_.NAMES)}")
    running = browser_.Browser(request.param, tmp_path_factory.mktemp("browser"))
    yield running
    running.close()
