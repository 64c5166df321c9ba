"""`make` repairs files that a killed DVC left half-written: DVC 3.67 writes some in place.

No result is lost: weights, tables and figures are elsewhere, and each run that ended is in the
run-cache, from where the next `dvc repro` takes it.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from dvc import rwlock, schema
from dvc.utils import dict_sha256
from ruamel.yaml import YAML
from zc.lockfile import LockError, LockFile

DVC = Path(".dvc")
LOCKS = (Path("dvc.lock"), Path("tuning/dvc.lock"))
CONFLICT = "<<<<<<< "
# DVC copies to such a name first; the source of the copy is whole.
TEMPORARY = re.compile(r".*\.[\w-]{22}\.tmp")


def main() -> None:
    """Repair files that a killed DVC left half-written, and report each."""
    if not DVC.is_dir():
        raise ValueError(".dvc is missing: run this from the root of the project")
    if not Path(".git").exists():
        do_without_git()
    (DVC / "tmp").mkdir(exist_ok=True)
    with ExitStack() as stack:
        for name in ("lock", "rwlock.lock"):
            try:
                stack.callback(LockFile(str(DVC / "tmp" / name)).close)
            except LockError:
                return  # a DVC is at work: its files are half-written for a moment only
        mend_rwlock(DVC / "tmp/rwlock")
        mend_run_cache(DVC / "cache/runs")
        for folder in ("data", "models", "metrics", "plots", ".dvc/cache/files"):
            remove_temporary_files(Path(folder))
        for path in LOCKS:
            mend_lock(path)


def do_without_git() -> None:
    """Let DVC work in a folder that is not a git repository, which it refuses by default."""
    config = DVC / "config.local"
    if config.exists() and "no_scm" in config.read_text(encoding="utf-8"):
        return
    command = sys.executable, "-m", "dvc", "config", "--quiet", "--local", "core.no_scm", "true"
    subprocess.run(command, check=True)
    say(
        "this folder is not a git repository: core.no_scm in .dvc/config.local lets DVC work; "
        "after `git init` run `dvc config --local --unset core.no_scm`"
    )


def mend_rwlock(path: Path) -> None:
    """Remove DVC's list of files in use, if it is half-written: no DVC is at work."""
    if path.exists() and not is_valid(path, json.loads, rwlock.SCHEMA):
        path.unlink()
        say(f"removed {path}, which a killed DVC left half-written; it held no result")


def mend_run_cache(folder: Path) -> None:
    """Remove half-written records of runs, and the folders of those not begun."""
    for path in folder.glob("*/*/*.tmp"):
        if not is_valid(path, YAML(typ="safe").load, partial(_check_record, path)):
            path.unlink()
            say(f"removed {path}, the half-written record of a run: that stage runs again")
    for path in [*folder.glob("*/*"), *folder.glob("*")]:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
            say(f"removed {path}, empty: a killed DVC had begun to record a run there")


def _check_record(path: Path, record: Any) -> None:
    """Raise an error if a record lacks an output or its hash, or ends within a line."""
    schema.COMPILED_LOCK_FILE_STAGE_SCHEMA(record)
    outs = [out["path"] for out in record["outs"] if out["md5"].removesuffix(".dir")[31]]
    key = dict_sha256(record | {"outs": outs}, exclude=["size", "nfiles"])  # as DVC does
    if key != path.parent.name or not path.read_bytes().endswith(b"\n"):
        raise ValueError


def remove_temporary_files(folder: Path) -> None:
    """Remove what DVC was copying."""
    left = [path for path in folder.rglob(".*.tmp") if TEMPORARY.fullmatch(path.name)]
    for path in left:
        path.unlink()
    if left:
        more = f" and {len(left) - 1} more" if left[1:] else ""
        say(f"removed {left[0]}{more}, unfinished copies")


def mend_lock(path: Path) -> None:
    """Replace a dvc.lock that DVC cannot read by the committed one.

    The damaged one is kept. Merge conflicts are left to the user.
    """
    if not path.exists() or is_valid(path, YAML(typ="safe").load, schema.COMPILED_LOCKFILE_SCHEMA):
        return
    if CONFLICT in path.read_text(encoding="utf-8", errors="replace"):
        return
    damaged = DVC / "tmp" / f"{'-'.join(path.parts)}.damaged"
    path.replace(damaged)
    try:
        command = "git", "show", f"HEAD:./{path.as_posix()}"
        committed = subprocess.run(command, check=False, capture_output=True).stdout
    except OSError:  # there is no git
        committed = b""
    if committed:
        from pipeline import files  # pandas, at each `make`

        files.write(path, committed)
    say(
        f"{path} was half-written by a killed DVC: it is "
        f"{'that of the last commit' if committed else 'written anew'}, and the runs since then "
        f"come from the run-cache; the damaged one is {damaged}"
    )


def is_valid(path: Path, parse: Callable[[str], Any], check: Callable[[Any], Any]) -> bool:
    """Whether DVC can read a file."""
    try:
        check(parse(path.read_text(encoding="utf-8")))
    except Exception:  # noqa: BLE001 (whatever the parser trips over)
        return False
    return True


def say(sentence: str) -> None:
    """What was mended, to the terminal."""
    print(f"mended: {sentence}", file=sys.stderr)
