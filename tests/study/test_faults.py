"""A full disk, read-only folders, damaged files, clocks that jump, two runs at once.

Each is tried on a finished study on digits: a clear error, no half-written output, and in the end
`dvc repro` alone makes what was there before, to the byte.
"""

import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Project, slow

from stages import (
    aggregate,
    diagnose,
    download,
    evaluate,
    evaluate_sampled,
    gradients,
    plot,
    plot_diagnostics,
    plot_sampled,
    split,
)

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs what only Linux has")

RESULTS = ("data", "models", "metrics", "plots", "dvc.lock")
WHEN_MENDED = "solve this and run `dvc repro`, which resumes from here"


@pytest.fixture(scope="module")
@slow
def finished(digits, strict, tmp_path_factory):
    """A copy of the finished study, and all that it wrote."""
    del strict
    folder = tmp_path_factory.mktemp("faults") / "study"
    shutil.copytree(digits.folder, folder)
    project = Project(folder)
    project.run("dvc", "repro")
    return project, project.content(*RESULTS)


@pytest.fixture
def study(finished):
    """The finished study, which `dvc repro` alone must be able to restore after the test."""
    project, before = finished
    yield project
    project.run("dvc", "repro")
    after = project.content(*RESULTS)
    assert set(after) == set(before)
    assert [name for name in before if after[name] != before[name]] == []


def call(project, command, wrapper=()):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [*wrapper, *command.split()],
        cwd=project.folder,
        env=os.environ | {"PATH": path},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def attempt(project, command, wrapper=()):
    """Run a command that must fail; what it printed, without a traceback."""
    done = call(project, command, wrapper)
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stdout
    assert not list(project.folder.rglob(".*.partial"))
    return done.stdout


def path_in_cache(project, name):
    """Where DVC's cache has a file that is among the results."""
    md5 = hashlib.md5((project.folder / name).read_bytes(), usedforsecurity=False).hexdigest()
    return project.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def forget(project, out):
    """Remove an output if it is there, also from DVC's cache."""
    for name in project.content(out):
        path_in_cache(project, name).unlink(missing_ok=True)
    shutil.rmtree(project.folder / out, ignore_errors=True)


def flip(path, *, unseen=False):
    """Flip a bit in the middle of a file, as a bad disk does: unseen without a new time."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(status.st_mode)
    if unseen:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# Damaged files.


def test_damaged_outputs_are_made_anew(study):
    """Truncated, flipped and missing files of the workspace: DVC sees the change."""
    folder = study.folder
    path = folder / "models/depths/L0/seed-0.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    flip(folder / "models/depths/L1/seed-7.safetensors")
    flip(folder / "data/split/train.safetensors")
    flip(folder / "data/raw/MNIST/raw/train-images-idx3-ubyte")
    (folder / "metrics/depths/L0.json").write_text("{", encoding="utf-8")
    (folder / "plots/depth_accuracy.csv").unlink()


def test_flipped_bits_that_dvc_does_not_see_are_reported(study):
    path = study.folder / "models/depths/L1/seed-7.safetensors"
    flip(path, unseen=True)
    output = attempt(study, "dvc repro --single-item --force evaluate@L1")
    assert (
        "error: models/depths/L1/seed-7.safetensors is damaged (its digest is that of other"
        in output
    )
    cure(study, ["models/depths/L1"])


def cure(project, outs):
    """What the message says: delete it, run ... and `dvc repro`, which the fixture does."""
    for out in outs:
        path = project.folder / out
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    project.run("chmod", "-R", "u+w", ".dvc/cache")


# File, output that has it, stage that reads it, what is damaged by its words.
IN_CACHE = [
    ("data/split/validation.safetensors", "data/split/validation.safetensors", "train@L2", "file"),
    ("models/depths/L0/seed-8.safetensors", "models/depths/L0", "evaluate@L0", "file"),
    ("models/depths/L1/history.csv", "models/depths/L1", "evaluate@L1", "out"),
    ("data/raw/MNIST/raw/train-images-idx3-ubyte", "data/raw", "split", "out"),
]


def test_a_damaged_cache_is_reported_by_the_stage_that_gets_it(study):
    """DVC hands out what its cache has without a look at it."""
    for name, out, _, _ in IN_CACHE:
        flip(path_in_cache(study, name))
        path = study.folder / out
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    study.run("dvc", "checkout", *(out for _, out, _, _ in IN_CACHE))
    for name, out, stage, named in IN_CACHE:
        output = attempt(study, f"dvc repro --single-item --force {stage}")
        assert f"error: {name if named == 'file' else out} is damaged (its " in output
        assert "delete it, run `chmod -R u+w .dvc/cache`" in output
    cure(study, [out for _, out, _, _ in IN_CACHE if (study.folder / out).exists()])


def test_a_stage_run_by_hand_takes_what_is_there(study, monkeypatch):
    monkeypatch.chdir(study.folder)
    for out in ("models/depths/L1", "models/instance"):
        (study.folder / out / "more").touch()
    monkeypatch.setenv("DVC_STAGE", "any")
    with pytest.raises(ValueError, match="models/depths/L1 is damaged"):
        evaluate.main("L1")
    with pytest.raises(ValueError, match="models/instance is damaged"):
        evaluate_sampled.main()
    monkeypatch.delenv("DVC_STAGE")
    evaluate.main("L1")
    evaluate_sampled.main()


# A full disk and read-only folders.


@contextmanager
def files_of_at_most(size_bytes) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (download.main, []),
        (split.main, []),
        (evaluate.main, ["L1"]),
        (aggregate.main, []),
        (plot.main, []),
        (diagnose.main, []),
        (plot_diagnostics.main, []),
        (gradients.main, []),
        (evaluate_sampled.main, []),
        (plot_sampled.main, []),
    ],
    ids=lambda value: getattr(value, "__module__", ""),
)
def test_a_stage_that_cannot_write_says_so_and_leaves_what_was_there(
    finished, monkeypatch, main, arguments
):
    project, before = finished
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(gradients, "CASES", 1)
    message = f" cannot be written: File too large; {re.escape(WHEN_MENDED)}$"
    with files_of_at_most(40), pytest.raises(ValueError, match=message) as caught:
        main(*arguments)
    assert "\n" not in str(caught.value)
    assert project.content(*RESULTS) == before
    assert not list(project.folder.rglob(".*.partial"))


@pytest.mark.parametrize("stage", ["train L1", "sampled"])
def test_a_training_that_cannot_write_says_so(finished, stage):
    project, before = finished
    output = attempt(
        project,
        f"python -m stages.{stage}",
        wrapper=["bash", "-c", 'ulimit -f 1; exec "$@"', "bash"],
    )
    out = f"models/{stage.replace('train ', 'depths/')}"
    last = output.splitlines()[-1]
    assert last == f"error: {out} cannot be written: File too large; {WHEN_MENDED}"
    assert project.content(*RESULTS) == before


@contextmanager
def small_disk(folder, size) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@LINUX
def test_a_full_disk(finished, tmp_path):
    """A small tmpfs with room for less and less of what a training writes, and DVC of it."""
    original, before = finished
    with small_disk(tmp_path / "disk", "40m"):
        project = Project(tmp_path / "disk" / "study")
        shutil.copytree(original.folder, project.folder)
        fill = tmp_path / "disk" / "fill"
        for free_bytes, output in (
            # There is room for the weights, but not for DVC's copies: DVC reports it and continues.
            (200_000, "No space left on device"),
            (30_000, f"models/depths/L1 cannot be written: No space left on device; {WHEN_MENDED}"),
            (0, "No space left on device"),
        ):
            forget(project, "models/depths/L1")
            disk = os.statvfs(project.folder)
            with fill.open("ab") as file:
                file.write(bytes(disk.f_bavail * disk.f_frsize - free_bytes))
            assert output in call(project, "dvc repro").stdout
            fill.unlink()
        project.run("dvc", "repro")
        assert project.content(*RESULTS) == before


# What a process without root's right to write anywhere would see, also where tests run as root.
WITHOUT_RIGHTS = [
    sys.executable,
    "-c",
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 1); os.execvp(sys.argv[1], sys.argv[1:])",
]


@contextmanager
def read_only(folder, *, deep=False) -> Iterator[None]:
    paths = [folder, *(path for path in folder.rglob("*") if deep and path.is_dir())]
    modes = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


@LINUX
def test_read_only_folders(study):
    forget(study, "models/depths/L1")
    with read_only(study.folder / "models/depths"):
        output = attempt(study, "dvc repro", wrapper=WITHOUT_RIGHTS)
    assert (
        f"error: models/depths/L1 cannot be written: Permission denied; {WHEN_MENDED}\n" in output
    )
    (study.folder / "metrics/depths/L2.json").unlink()
    with read_only(study.folder / "metrics/depths"):
        output = attempt(study, "python -m stages.evaluate L2", wrapper=WITHOUT_RIGHTS)
    assert output.startswith("error: metrics/depths/L2.json cannot be written: Permission denied; ")
    with read_only(study.folder, deep=True):
        output = attempt(study, "dvc repro", wrapper=WITHOUT_RIGHTS)
    assert "Permission denied" in output


# Clocks.


def test_files_from_another_time_train_nothing(study):
    """Content decides, not the time of a file, whatever the clock said when it was written."""
    for number, path in enumerate(sorted(study.folder.rglob("*"))):
        if path.is_file() and ".git" not in path.parts:
            moment = 0 if number % 2 else 4_000_000_000  # 1970, 2096
            os.utime(path, (moment, moment))
    assert "Running stage" not in study.run("dvc", "repro")


# What Python runs at its start: the clock goes forth and back by up to a month at each look.
JUMPING_CLOCK = """
import random, time
def jumping(clock=time.time):
    return clock() + random.uniform(-3e6, 3e6)
time.time = jumping
"""


def test_a_clock_that_jumps_changes_no_result(study, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(JUMPING_CLOCK, encoding="utf-8")
    clock = {"PYTHONPATH": str(tmp_path)}
    jumps = study.run("python", "-c", "import time; print(time.time.__name__)", **clock)
    assert jumps == "jumping\n"
    for stage in ("download", "split", "train L1", "evaluate L1"):
        study.run("python", "-m", *f"stages.{stage}".split(), **clock)


# Two at once.


def test_two_runs_at_once_never_mix(study):
    """The second waits, has nothing to do, or says that the first is at work."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ends = []
    for seconds in (0.0, 4.0):
        forget(study, "models/depths/L1")
        forget(study, "models/depths/L2")
        pair = []
        for _ in range(2):
            pair.append(
                subprocess.Popen(
                    ["dvc", "repro"],
                    cwd=study.folder,
                    env=os.environ | {"PATH": path},
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
            time.sleep(seconds)
        for process in pair:
            output, _ = process.communicate(timeout=600)
            ends.append(process.returncode)
            assert "Traceback" not in output
            if process.returncode:
                assert re.search("Unable to acquire lock|is busy, it is being blocked by", output)
        study.run("dvc", "repro")
    assert ends.count(0) >= 2
