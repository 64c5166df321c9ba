"""Files are whole or not there, also where two processes write at once or one has died."""

import os
import subprocess
import sys
from socket import gethostname

import pandas as pd
import pytest
from conftest import ROOT

from pipeline import files

# Begins to write a file and a folder, says so, and waits for a line before it has done.
WRITER = """
import sys
from pathlib import Path
from pipeline import files

with files.replacing(Path(sys.argv[1], "file")) as file:
    with files.replacing(Path(sys.argv[1], "folder")) as folder:
        folder.mkdir()
        for path in (file, folder / "file"):
            path.write_text("another's")
        print("begun", flush=True)
        input()
"""


@pytest.fixture
def writer(tmp_path):
    """Another process that is about to write the same."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        yield process
        process.kill()


def write(folder):
    with files.replacing(folder / "file") as partial:
        partial.write_text("ours")
    with files.replacing(folder / "folder") as partial:
        partial.mkdir()
        (partial / "file").write_text("ours")


def content(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_two_processes_may_write_the_same_at_once(writer, tmp_path):
    write(tmp_path)
    assert content(tmp_path).items() >= {"file": "ours", "folder/file": "ours"}.items()
    writer.communicate("\n", timeout=60)
    assert writer.returncode == 0
    assert content(tmp_path) == {"file": "another's", "folder/file": "another's"}


def test_what_a_dead_process_left_is_removed_by_the_next(writer, tmp_path):
    writer.kill()
    writer.wait()
    assert len(list(tmp_path.iterdir())) == 2
    # Of a host whose processes nobody here can see, and of this process's number in another life.
    elsewhere = tmp_path / f".file.elsewhere.{writer.pid}.partial"
    for path in (elsewhere, tmp_path / f".file.{gethostname()}.{os.getpid()}.partial"):
        path.touch()
    write(tmp_path)
    assert content(tmp_path) == {"file": "ours", "folder/file": "ours", elsewhere.name: ""}


def everything(folder):
    """All that is in a folder: the bytes of each file, None for a folder."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


class StopError(Exception):
    pass


def write_and_stop(target, make):
    with files.replacing(target) as partial:
        make(partial)
        raise StopError


@pytest.mark.parametrize("make", [lambda path: path.write_text("new"), lambda path: path.mkdir()])
@pytest.mark.parametrize("old", ["nothing", "file", "folder"])
def test_what_is_half_written_vanishes_and_what_was_there_stays(make, old, tmp_path):
    target = tmp_path / "target"
    if old == "file":
        target.write_text("old", encoding="utf-8")
    elif old == "folder":
        (target / "inner").mkdir(parents=True)
    before = everything(tmp_path)
    with pytest.raises(StopError):
        write_and_stop(target, make)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("old", ["nothing", "file"])
def test_a_whole_file_takes_the_place_of_what_was_there(old, tmp_path):
    target = tmp_path / "deep/target"
    if old == "file":
        files.write_json(target, {"old": 1})
    with files.replacing(target) as partial:
        partial.write_text("new", encoding="utf-8")
        assert target.exists() == (old != "nothing")
    assert target.read_text(encoding="utf-8") == "new"
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    target = tmp_path / "target"
    (target / "inner").mkdir(parents=True)
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="target cannot be written: Is a directory"):
        files.write_json(target, {"new": 1})
    assert everything(tmp_path) == before


def test_a_whole_folder_takes_the_place_of_another(tmp_path):
    target = tmp_path / "target"
    (target / "old").mkdir(parents=True)
    with files.replacing(target) as partial:
        (partial / "new").mkdir(parents=True)
    assert [path.name for path in target.iterdir()] == ["new"]


def test_json_with_a_number_that_is_none_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "out.json", {"loss": float("nan")})
    assert not everything(tmp_path)


def test_tables_keep_all_digits_of_their_numbers(tmp_path):
    table = pd.DataFrame({"a": [0.1 + 0.2, 1 / 3, 5e-324], "b": [None, 1.0, 2.0]})
    files.write_csv(tmp_path / "table.csv", table)
    again = files.read_csv(tmp_path / "table.csv", ["a", "b"])
    pd.testing.assert_frame_equal(again, table, check_exact=True, check_dtype=False)


MISSING = "is missing: run `dvc repro`, which makes it"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, MISSING),
        (b"", "is not valid CSV"),
        (b"\xff\xfe", "is not UTF-8"),
        (b'a,b\n1,"2', "is not valid CSV"),
        (b"a,b\n", "must have rows and the columns a, b, got 0 rows and a, b: run `dvc repro`"),
        (b"a,c\n1,2\n", "must have rows and the columns a, b, got 1 rows and a, c"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, content, message):
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} {message}"):
        files.read_csv(path, ["a", "b"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, MISSING),
        (b"", r"is not valid JSON \("),
        (b'{"a": ', r"is not valid JSON \("),
        (b"[]", r"must hold a mapping, got \[\]"),
        (b"3", "must hold a mapping, got 3"),
        (b"\xff\xfe", "is not UTF-8"),
    ],
)
def test_damaged_json_is_refused(tmp_path, content, message):
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} {message}"):
        files.read_json(path)
