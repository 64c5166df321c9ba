"""`python -m tools mend`: what a killed DVC left half-written, and what is left alone."""

import subprocess

import pytest
from dvc.utils import dict_sha256
from ruamel.yaml import YAML
from zc.lockfile import LockFile

from tools import mend

WHOLE = "schema: '2.0'\nstages:\n  check:\n    cmd: python -m stages.check\n"


RECORD = """\
cmd: make
deps:
- path: x
  hash: md5
  md5: 585fa0505f520d7dca84c107846b1a0d
outs:
- path: a
  hash: md5
  md5: 90aa55d31ca1c890efd7ab50df774057
- path: b
  hash: md5
  md5: 126198369362df7c54984cf13f63be96.dir
  size: 5
  nfiles: 2
"""


def write_record(project, text):
    """Into the folder that DVC gives it, by a name that it has while it is written."""
    record = YAML(typ="safe").load(RECORD)
    outs = [out["path"] for out in record["outs"]]
    key = dict_sha256(record | {"outs": outs}, exclude=["size", "nfiles"])
    path = project / ".dvc/cache/runs" / key[:2] / key / ".x.tmp"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A git repository with a dvc.lock and a record of a run."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "dvc.lock": WHOLE,
        ".dvc/tmp/rwlock": '{"read": {}}',
        ".dvc/cache/runs/ab/abc/record": "cmd: make\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    for command in (("init", "-q"), ("add", "dvc.lock"), (*identity, "commit", "-qm", "study")):
        subprocess.run(["git", *command], check=True)
    return tmp_path


def content(project):
    paths = [project / "dvc.lock", *project.glob(".dvc/**/*")]
    return {
        str(path.relative_to(project)): path.read_text(encoding="utf-8")
        for path in paths
        if path.is_file() and path.name not in {"lock", "rwlock.lock"}
    }


def test_what_is_whole_is_left_alone(project, capfd):
    (project / "dvc.lock").write_text(WHOLE + "  more:\n    cmd: make\n", encoding="utf-8")
    write_record(project, RECORD)
    before = content(project)
    mend.main()
    assert content(project) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["", "{", '{"read"', "[]"])
def test_half_written_list_of_files_in_use_is_removed(project, text, capfd):
    before = content(project)
    (project / ".dvc/tmp/rwlock").write_text(text, encoding="utf-8")
    mend.main()
    del before[".dvc/tmp/rwlock"]
    assert content(project) == before
    assert capfd.readouterr().err == (
        "mended: removed .dvc/tmp/rwlock, which a killed DVC left half-written; it held no result\n"
    )


@pytest.mark.parametrize("size", [0, 1, 9, 15, 30, 35])
def test_half_written_lock_becomes_that_of_the_last_commit_and_is_kept(project, size, capfd):
    before = content(project)
    (project / "dvc.lock").write_text(WHOLE[:size], encoding="utf-8")
    mend.main()
    assert content(project) == before | {".dvc/tmp/dvc.lock.damaged": WHOLE[:size]}
    assert "it is that of the last commit" in capfd.readouterr().err


def test_half_written_lock_without_a_commit_is_written_anew(project, monkeypatch, capfd):
    monkeypatch.setenv("PATH", "")
    (project / "dvc.lock").write_text("", encoding="utf-8")
    mend.main()
    assert not (project / "dvc.lock").exists()
    assert "it is written anew" in capfd.readouterr().err


def test_conflicts_of_a_merge_are_left_to_whoever_merges(project):
    text = f"<<<<<<< ours\n{WHOLE}=======\n{WHOLE}>>>>>>> theirs\n"
    (project / "dvc.lock").write_text(text, encoding="utf-8")
    before = content(project)
    mend.main()
    assert content(project) == before


def test_records_of_runs_that_were_not_begun_or_half_written_are_removed(project, capfd):
    before = content(project)
    runs = project / ".dvc/cache/runs"
    (runs / "cd/cde").mkdir(parents=True)
    (runs / "ab/abd").mkdir()
    (runs / "ab/abd/.x.tmp").write_text("cm", encoding="utf-8")
    mend.main()
    assert content(project) == before
    assert sorted(path.name for path in runs.rglob("*")) == ["ab", "abc", "record"]
    assert capfd.readouterr().err.count("mended: removed ") == 4


def test_a_record_is_whole_if_it_has_the_hashes_of_all_outputs(project):
    for length in range(len(RECORD)):
        path = write_record(project, RECORD[:length])
        mend.main()
        rest = RECORD[length:]
        assert path.exists() == (rest in {"  size: 5\n  nfiles: 2\n", "  nfiles: 2\n"}), rest
    path = write_record(project, RECORD)
    mend.main()
    assert path.exists()


def test_while_dvc_is_at_work_nothing_is_mended(project):
    (project / ".dvc/tmp/rwlock").write_text("", encoding="utf-8")
    before = content(project)
    for name in ("lock", "rwlock.lock"):
        lock = LockFile(str(project / ".dvc/tmp" / name))
        mend.main()
        lock.close()
        assert content(project) == before
    mend.main()
    assert content(project) != before


def test_without_git_dvc_is_reported_so_once(project, capfd):
    subprocess.run(["rm", "-r", ".git"], check=True)
    mend.main()
    assert "this folder is not a git repository" in capfd.readouterr().err
    assert "no_scm = true" in (project / ".dvc/config.local").read_text(encoding="utf-8")
    mend.main()
    assert capfd.readouterr().err == ""


def test_elsewhere_than_in_the_project_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"\.dvc is missing: run this from the root"):
        mend.main()
