"""Atomic writes of files, and outputs of earlier stages compared with dvc.lock."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from hashlib import md5
from io import StringIO
from pathlib import Path
from socket import gethostname
from typing import Any

import pandas as pd
import psutil
from ruamel.yaml import YAML

LOCK = Path("dvc.lock")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name for a file or a folder, which is renamed to `path` on success.

    The name is unique to this process. Leftovers of dead processes of this host are removed.

    Raises:
        ValueError: if the system refuses, as on a full disk or in a read-only folder.
    """
    host = gethostname()
    partial = path.with_name(f".{path.name}.{host}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(escape(f".{path.name}.{host}.") + "*.partial"):
            if left == partial or not psutil.pid_exists(int(left.suffixes[-2][1:])):
                _remove(left)
        yield partial
        if path.is_dir() and partial.is_dir():  # a file never replaces a folder
            _remove(path)
        partial.replace(path)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written: {error.strerror or error}; "
            "solve this and run `dvc repro`, which resumes from here"
        ) from None
    finally:
        with suppress(OSError):  # the first error is the one to report
            _remove(partial)


def as_recorded(path: Path) -> Path:
    """An output of an earlier stage, after a comparison with dvc.lock.

    DVC does not check the files in its cache, in which a disk may have flipped bits. A stage that
    is run by hand takes the file as it is.

    Args:
        path: a file or folder that dvc.lock may list as an output.

    Raises:
        ValueError: if it is something else.
    """
    if "DVC_STAGE" not in os.environ or not path.exists() or not LOCK.exists():
        return path
    stages = YAML(typ="safe").load(read_text(LOCK)).get("stages", {}).values()
    outs = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}
    found = md5_of(path)
    if (expected := outs.get(path.as_posix(), found)) != found:
        raise ValueError(
            f"{path} is damaged (its MD5 is {found}, in {LOCK} {expected}): delete it, "
            "run `chmod -R u+w .dvc/cache` (so that DVC checks its cache) and `dvc repro`"
        )
    return path


def md5_of(path: Path) -> str:
    """The MD5 sum as DVC computes it: for a folder, that of a list of its files."""
    if path.is_file():
        return md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    names = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
    content = [{"md5": md5_of(path / name), "relpath": name} for name in names]
    return md5(json.dumps(content).encode(), usedforsecurity=False).hexdigest() + ".dir"


def write(path: Path, content: str | bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file.

    Raises:
        ValueError: if it is missing or damaged.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): run `dvc repro`") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping, got {content!r}"[:200])  # noqa: TRY004
    return content


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file atomically; numbers keep all their digits, None is empty."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")


def read_csv(path: Path, columns: Sequence[str], *, may_be_empty: bool = False) -> pd.DataFrame:
    """Read a CSV file that has at least these columns and, unless it may be empty, a row.

    Raises:
        ValueError: if it is missing or damaged.
    """
    try:
        table = pd.read_csv(StringIO(read_text(path)))
    except ValueError as error:
        raise ValueError(f"{path} is not valid CSV ({error}): run `dvc repro`") from None
    missing = [column for column in columns if column not in table]
    if missing or (table.empty and not may_be_empty):
        raise ValueError(
            f"{path} must have rows and the columns {', '.join(columns)}, "
            f"got {len(table)} rows and {', '.join(table)}: run `dvc repro`"
        )
    return table


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ValueError: if it is missing or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run `dvc repro`, which makes it") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})") from None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
