"""Every crash point: what a process leaves that is killed at its k-th operation on a file.

`python -m tests.crashes.search` looks at all k of each stage that writes and of the tools, on
digits, and of `dvc repro` in a pipeline of four stages. A copy of the folder is kept at each
operation. In each copy a result is whole or not there at all, and what `make` runs, alone, gives
the bytes of an undisturbed run.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from zlib import crc32

import numpy as np
import typer
from ruamel.yaml import YAML

from pipeline import processes, trainings
from tools import demo

SOURCE = Path(__file__).with_name("crash.c")
KEEP = Path(__file__).with_name("keep.sh")
ROOT = Path(__file__).parents[2]

CHANGES = demo.CHANGES | {
    ("train", "epochs"): 2,
    ("seeds",): [0, 7],
    ("models",): {f"L{depth}": {"depth": depth, "width": 1} for depth in (0, 1)},
    ("models", "L0"): {"depth": 0},
    ("tuning",): {"seeds": [9], "linear": [0.1], "hidden": [0.1]},
    ("sampled", "epochs"): 2,
    ("sampled", "runs"): {"full": {"weighting": "full", "learning_rate": 0.1}},
    ("instance", "hidden"): 8,
    ("instance", "features"): 4,
    ("instance", "batch_size"): 64,
    ("instance", "evaluations"): 1,
    ("instance", "runs"): {"full": {"weighting": "full", "learning_rate": 0.1, "epochs": 2}},
}
# In this order each finds what it reads.
WORKS = [
    "stages.download",
    "stages.split",
    "stages.gradients",
    "stages.train L0",
    "stages.train L1",
    "stages.evaluate L0",
    "stages.evaluate L1",
    "stages.aggregate",
    "stages.plot",
    "stages.diagnose",
    "stages.plot_diagnostics",
    "stages.sampled",
    "stages.instance",
    "stages.evaluate_sampled",
    "stages.plot_sampled",
    "stages.tune L0",
    "stages.tune L1",
    "stages.choose",
    "tools.report",
    "tools.export",
    "tools.widths",
    "tools.plot_budgets",
    "tools.own",
]
# Data of a user, for the last work: it changes params.yaml.
OWN = Path("mine.npz")
# Of dvc.yaml: a stage without outputs, one with a folder, one with files, one that git keeps.
STAGES = ("check", "download", "split", "plot_sampled")

# Words by which what `tools mend` says is counted.
MENDED = ("rwlock", "dvc.lock", "record", "copies")

Content = dict[Path, bytes | None]


def call(name: str) -> None:
    """Run a stage or a tool as a function, one job after another."""
    module, *arguments = name.split()
    main = import_module(module).main
    if module == "tools.export":
        main("L1", Path("L1.onnx"), None)
    elif module == "tools.own":
        main(OWN)
    elif module == "tools.widths":
        main(write=True, budget=None, arguments=False)
    else:
        main(*arguments)


def make() -> None:
    """What `make` runs."""
    from dvc.cli import main

    from tools import mend

    mend.main()
    if code := main(["repro"]):
        raise ValueError(f"`dvc repro` ended with {code}")


def one_after_another(
    work: Callable[..., Any], jobs: Sequence[Any], *, advance: Callable[[str], None], **_: Any
) -> list[Any]:
    """Instead of `processes.run_all`: jobs are done in this process."""
    results = []
    for job in jobs:
        while (result := work(job, advance)) is None:
            pass
        results.append(result)
    return results


def run(folder: Path, work: Callable[[], None], kept: Path | None = None, every: int = 1) -> str:
    """Run a work in a process of its own.

    Args:
        folder: where to.
        work: what to run.
        kept: where to keep copies of the folder at each n-th operation, from one on that the name
            of this folder decides; None to keep none.
        every: that n.

    Returns:
        What it printed.

    Raises:
        ValueError: if it fails.
    """
    log = folder.parent / "log"
    library = ctypes.CDLL(None)
    first = ctypes.c_long(crc32(kept.name.encode()) % every if kept else 0)
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        try:
            with log.open("w", encoding="utf-8") as file:
                for stream in (1, 2):
                    os.dup2(file.fileno(), stream)
            os.chdir(folder)
            if kept:
                keep = f"sh {KEEP} {folder} {kept}"
                watched = str(folder).encode(), keep.encode()
                library.crash_watch(*watched, ctypes.c_long(every), first)
            work()
            library.crash_watch(b"", b"", ctypes.c_long(0), first)
            sys.stdout.flush()
            with os.fdopen(writer, "w") as pipe:
                pipe.write(" ".join(sys.modules))
            os._exit(0)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        names = pipe.read().split()
    _, status = os.waitpid(process, 0)
    text = log.read_text(encoding="utf-8", errors="replace")
    if status:
        raise ValueError(text)
    for name in names:  # what is imported here need not be imported again by each process
        if name not in sys.modules and not name.startswith("_"):
            with suppress(Exception):
                import_module(name)
    return text


def content(folder: Path) -> Content:
    """All files of a folder but git's, and its folders."""
    found: Content = {}
    for path in folder.rglob("*"):
        if ".git" not in path.parts and "__pycache__" not in path.parts:
            found[path] = None if path.is_dir() and not path.is_symlink() else path.read_bytes()
    return found


def restore(folder: Path, before: Content) -> None:
    """Make a folder what it was."""
    now = content(folder)
    for path in sorted(now.keys() - before.keys(), reverse=True):
        path.rmdir() if now[path] is None else path.unlink()
    for path, data in sorted(before.items()):
        if data is None:
            path.mkdir(exist_ok=True)
        elif now.get(path) != data:
            path.unlink(missing_ok=True)
            path.write_bytes(data)


def results(found: Content) -> Content:
    """Without what is neither a result nor to be read by anybody."""
    return {
        path: data
        for path, data in found.items()
        if data is not None and path.suffix != ".partial" and not hidden(path)
    }


def hidden(path: Path) -> bool:
    return any(part in {".dvc", ".checkpoints"} or ".partial" in part for part in path.parts)


def search(
    folder: Path, name: str, work: Callable[[], None], before: Content, after: Content, every: int
) -> tuple[int, Counter[str]]:
    """Look at what each n-th crash of a work leaves: how many there are, and what was mended.

    Raises:
        ValueError: if something is half-written, or is not in the end what it should be.
    """
    mended: Counter[str] = Counter()
    restore(folder, before)
    with TemporaryDirectory() as parent:
        kept = Path(parent, name.replace(" ", "-"))
        kept.mkdir()
        run(folder, work, kept, every)
        copies = sorted(kept.iterdir(), key=lambda path: int(path.name))
        for number, copy in enumerate(copies, start=1):
            if number % 50 == 0:
                print(f"  {name}: {number} of {len(copies)}", flush=True)
            for path in folder.iterdir():
                if path.name != ".git":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in list(copy.iterdir()):
                path.rename(folder / path.name)
            where = f"{name}, operation {copy.name}"
            for path, data in results(content(folder)).items():
                if name != "dvc repro" and data not in (before.get(path), after.get(path)):
                    raise ValueError(f"{where}: {path} is half-written")
            text = run(folder, work)
            found = content(folder)
            if results(found) != results(after):
                differing = {p for p, _ in results(found).items() ^ results(after).items()}
                raise ValueError(f"{where}: {differing} differ in the end: {text}")
            if left := [p for p in found if ".partial" in p.name or ".checkpoints" in p.parts[:-1]]:
                raise ValueError(f"{where}: {left} is left")
            lines = [line for line in text.splitlines() if line.startswith("mended: ")]
            mended.update({kind for kind in MENDED if any(kind in line for line in lines)})
    return len(copies), mended


def study(parent: Path) -> Path:
    """The study on digits with two networks, in which nothing ran yet."""
    folder = parent / "study"
    with chdir(ROOT):
        demo.make(folder, dict(CHANGES), demo.LEARNING_RATE)
    for name in ("docs", "tests", "benchmarks/results", "cluster", "examples", "record"):
        shutil.rmtree(folder / name)
    np.savez(folder / OWN, x=np.arange(60.0).reshape(30, 2), y=np.arange(30) % 3)
    return folder


def every_stage_and_tool(parent: Path) -> Iterator[tuple[str, Path, Callable[[], None]]]:
    folder = study(parent)
    processes.run_all = one_after_another
    trainings.PART_SECONDS = 0.0  # a checkpoint after each epoch
    for name in WORKS:
        yield name, folder, lambda name=name: call(name)


def pipeline(parent: Path) -> Path:
    """A pipeline of four stages for `dvc repro`."""
    folder = study(parent)
    yaml = YAML()
    document = yaml.load(folder / "dvc.yaml")
    for name in set(document["stages"]) - set(STAGES):
        del document["stages"][name]
    (folder / "plots").mkdir(exist_ok=True)
    for name in ("sampled.csv", "instance.csv"):
        shutil.copy(ROOT / "plots" / name, folder / "plots")
    # The stages' own ends are searched apart from this: here they copy what they gave once.
    given = parent / "given"
    shutil.copytree(folder, given)
    for stage in document["stages"].values():
        subprocess.run(["sh", "-c", stage["cmd"]], cwd=given, check=True)
        outs = [
            o if isinstance(o, str) else next(iter(o))
            for o in stage.get("outs", stage.get("plots", []))
        ]
        copies = [f"mkdir -p {Path(o).parent} && cp -r ../given/{o} {o}" for o in outs]
        stage["cmd"] = " && ".join(copies) or "true"
    yaml.dump(document, folder / "dvc.yaml")
    # DVC's notes on files are about those of this folder, and copies are none of them.
    command = [sys.executable, "-m", "dvc", "config", "core.site_cache_dir", str(parent / "site")]
    subprocess.run(command, cwd=folder, check=True)
    return folder


def main(
    *,
    every: Annotated[int, typer.Option(min=1, help="Only each n-th operation.")] = 1,
    only: Annotated[str, typer.Option(help="Only works whose name contains this.")] = "",
) -> None:
    """Search all crash points."""
    if "crash.so" not in os.environ.get("LD_PRELOAD", ""):
        restart()
    bin_folder = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([bin_folder, os.environ["PATH"]])
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    started, total, all_mended = time.monotonic(), 0, Counter()
    with TemporaryDirectory() as name:
        for work_name, folder, work in every_stage_and_tool(Path(name)):
            before = content(folder)
            run(folder, work)
            after = content(folder)
            if only not in work_name:
                continue
            for kind, state in (("new", before), ("again", after)):
                tried, _ = search(folder, work_name, work, state, after, every)
                total += tried
                seconds = time.monotonic() - started
                print(f"{work_name}, {kind}: {tried} ends; {seconds:.0f} s so far", flush=True)
            restore(folder, after)
    if only in "dvc repro":
        with TemporaryDirectory() as name:
            folder = pipeline(Path(name))
            before = content(folder)
            run(folder, make)
            after = content(folder)
            tried, all_mended = search(folder, "dvc repro", make, before, after, every)
            print(f"dvc repro: {tried} ends; mended: {dict(all_mended)}")
            total += tried
    print(f"{total} ends in {time.monotonic() - started:.0f} s: all results are whole and the same")


def restart() -> None:
    """Start anew with the library that counts operations on files."""
    with TemporaryDirectory() as name:
        library = Path(name) / "crash.so"
        command = "cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"
        subprocess.run(command, check=True)
        again = subprocess.run(
            [sys.executable, "-m", "tests.crashes.search", *sys.argv[1:]],
            env=os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"},
            check=False,
        )
    sys.exit(again.returncode)


if __name__ == "__main__":
    typer.run(main)
