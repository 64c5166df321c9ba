"""What the stages share: parameters, whole files or none, one sentence for an error, progress."""

import ctypes
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import md5
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.progress import Progress
from ruamel.yaml import YAML

from isoparam.parameters import LearningRates, Model, Parameters, Schema, validate

# Instructions that each x86-64 processor of the last decade has, for torch, MKL and oneDNN.
STRICT = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}

PARAMETERS = Path("params.yaml")
LEARNING_RATES = Path("learning_rates.yaml")
LOCK = Path("dvc.lock")

# The model of a stage's command. DVC starts commands by a shell, so a name from params.yaml is no
# part of them: it comes from the name of the stage, such as train@L3.
ModelName = Annotated[
    str,
    typer.Argument(
        envvar="DVC_STAGE",
        parser=lambda text: text.rpartition("@")[2],
        metavar="NAME",
        help="A model of params.yaml, such as L3.",
    ),
]


def read_params() -> Parameters:
    """The checked content of params.yaml.

    Raises:
        ValueError: if it is missing, not YAML, or not what the schema asks for.
    """
    return _read_yaml(PARAMETERS, Parameters)


def learning_rate_of(name: str) -> float:
    """The learning rate of a model, from the checked content of learning_rates.yaml.

    Raises:
        ValueError: if that is missing, not what the schema asks for, or has no such model.
    """
    rates = _read_yaml(LEARNING_RATES, LearningRates).root
    if name not in rates:
        raise ValueError(
            f"{LEARNING_RATES} has no learning rate of {name}: add `{name}: ...`, a number"
        )
    return rates[name]


def _read_yaml(path: Path, schema: type[Schema]) -> Schema:
    if not path.exists():
        raise ValueError(f"{path} is missing: run this from the root of the project")
    text = _read_text(path)
    try:
        document = YAML(typ="safe").load(text)
    except Exception as error:  # noqa: BLE001 (besides YAMLError, whatever a tag makes it trip over)
        reason = " ".join(f"{error or type(error).__name__}".split())
        raise ValueError(f"{path} is not valid YAML: {reason}") from None
    try:
        return validate(document, schema)
    except ValueError as error:
        lines = str(error).splitlines()
        raise ValueError("\n".join(f"{path}: {line}" for line in lines)) from None


@contextmanager
def edited_params(path: Path = PARAMETERS) -> Iterator[Any]:
    """The content of a params.yaml to change, which is then written with its comments kept."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(path)
    yield document
    with replacing(path) as partial:
        yaml.dump(document, partial)


def find_model(models: dict[str, Model], name: str) -> Model:
    """The model of that name.

    Raises:
        ValueError: if params.yaml has none of that name.
    """
    if name not in models:
        raise ValueError(
            f"{PARAMETERS} has no model {name!r} under models; it has {', '.join(models)}"
        )
    return models[name]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write a file or a folder to, which becomes `path` when all went well.

    Raises:
        ValueError: if the system refuses, as on a full disk or in a read-only folder.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        yield partial
        if path.is_dir():
            _remove(path)
        partial.replace(path)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written: {error.strerror or error}; "
            "see to that and run `dvc repro`, which goes on from here"
        ) from None
    finally:
        with suppress(OSError):  # the first error is the one to tell
            _remove(partial)


def as_recorded(path: Path) -> Path:
    """An output of an earlier stage, found to be what dvc.lock says, for DVC does not look.

    It hands out what is in its cache unseen, though a disk may have flipped bits of it. A stage
    that is run by hand takes what is there.

    Args:
        path: a file or folder that dvc.lock may list as an output.

    Raises:
        ValueError: if it is something else.
    """
    if "DVC_STAGE" not in os.environ or not path.exists() or not LOCK.exists():
        return path
    stages = YAML(typ="safe").load(_read_text(LOCK)).get("stages", {}).values()
    outs = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}
    found = md5_of(path)
    if (expected := outs.get(path.as_posix(), found)) != found:
        raise ValueError(
            f"{path} is damaged (its MD5 is {found}, in {LOCK} {expected}): delete it, "
            "run `chmod -R u+w .dvc/cache` (so that DVC checks its cache) and `dvc repro`"
        )
    return path


def md5_of(path: Path) -> str:
    """As DVC reckons it: of a folder, that of a list of its files."""
    if path.is_file():
        return md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    names = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
    content = [{"md5": md5_of(path / name), "relpath": name} for name in names]
    return md5(json.dumps(content).encode(), usedforsecurity=False).hexdigest() + ".dir"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file.

    Raises:
        ValueError: if it is missing or damaged.
    """
    text = _read_text(path)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): run `dvc repro`") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping, got {content!r}"[:200])  # noqa: TRY004
    return content


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file, whole or not at all; numbers keep all their digits, None is empty."""
    with replacing(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")


def read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file that has at least these columns and a row.

    Raises:
        ValueError: if it is missing or damaged.
    """
    try:
        table = pd.read_csv(StringIO(_read_text(path)))
    except ValueError as error:
        raise ValueError(f"{path} is not valid CSV ({error}): run `dvc repro`") from None
    missing = [column for column in columns if column not in table]
    if missing or table.empty:
        raise ValueError(
            f"{path} must have rows and the columns {', '.join(columns)}, "
            f"got {len(table)} rows and {', '.join(table)}: run `dvc repro`"
        )
    return table


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a line at each tenth of the way in a log.

    Yields:
        A function to call after each of `total` pieces of work, with a text to show.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console) as bar:
            task = bar.add_task(description, total=total)
            yield lambda text: bar.update(task, advance=1, description=f"{description} {text}")
        return
    done = 0

    def advance(text: str) -> None:
        nonlocal done
        done += 1
        if done * 10 // total > (done - 1) * 10 // total:
            print(f"{description} {done}/{total} {text}", file=sys.stderr, flush=True)

    yield advance


def run(main: Callable[..., None]) -> None:
    """Run a stage's function as a command; what goes wrong becomes one sentence and exit code 1."""
    die_with_parent()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except (ValueError, OSError) as error:
        text = str(error)
        if isinstance(error, OSError):  # without the number that Python puts first
            text = ": ".join(str(part) for part in (error.filename, error.strerror) if part) or text
        print(f"error: {text}", file=sys.stderr)
        sys.exit(1)


def die_with_parent() -> None:
    """On Linux, let the kernel end this process when its parent dies, so that none is orphaned.

    A stage of DVC whose parent died before that was said has process 1 for a parent, and ends now.
    """
    if sys.platform != "linux":
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() == 1 and "DVC_STAGE" in os.environ:
        # In a container process 1 may be DVC itself, or the shell that it starts this command by.
        command = Path("/proc/1/cmdline").read_bytes()
        if b"dvc" not in command and b"stages." not in command:
            sys.exit("error: the dvc that started this stage is gone")


def use_instructions(*, strict: bool) -> None:
    """For strict, start this command anew with instructions that give the same bits everywhere.

    torch reads them when it is imported, which may have happened.
    """
    if strict and not os.environ.items() >= STRICT.items():
        os.execve(sys.executable, sys.orig_argv, os.environ | STRICT)


def available_cores() -> int:
    """Processor cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read_text(path: Path) -> str:
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
