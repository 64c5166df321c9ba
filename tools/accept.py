"""`make accept`: records a change of code that changes no number, in minutes instead of hours.

First the guard compares all stages, on digits and in strict mode, with the recorded outputs. Then
the recorded code and the current code train the same networks of the study on this machine, in
default mode, and must give the same bytes. The processor of the recorded run does not matter.
"""

import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline import commands, files, parameters
from tools import guard, verify

LOCKS = (files.LOCK, Path("tuning/dvc.lock"))
CODE = ("isoparam/", "stages/")
# The seeds of both trained networks: two suffice, since seeds do not depend on each other.
SEEDS = 2


def main() -> None:
    """Record the current code in dvc.lock and tuning/dvc.lock if it changes no number."""
    changes = json.loads(commands.dvc("status", "--json"))
    if not changes:
        print("There is nothing to accept: dvc.lock has the hashes of the current code.")
        return
    _check_that_code_alone_changed(changes)
    record = guard.read_record()
    if reason := guard.not_comparable(record) or guard.figures_not_comparable(record):
        raise ValueError(f"nothing can be accepted here, where the guard cannot compare: {reason}")
    with TemporaryDirectory(prefix="isoparam-") as temporary:
        old = _clone_the_recorded_code(Path(temporary) / "recorded")
        guard.main(record=False)
        anew = bool({"download", "split"} & set(changes))
        before = _train(Path(temporary) / "before", old, anew=False)
        after = _train(Path(temporary) / "after", verify.ROOT, anew=anew)
    if differing := [path for path in before | after if before.get(path) != after.get(path)]:
        raise ValueError(
            f"the current code gives other bytes than the recorded code: {', '.join(differing)}: "
            "run `make`"
        )
    print(f"trainings: identical: {', '.join(before)}")
    commands.dvc("commit", "--force")
    print("Recorded: commit dvc.lock and tuning/dvc.lock together with the change.")


def _check_that_code_alone_changed(changes: dict[str, Any]) -> None:
    """Refuse results without the recorded bytes, and changed parameters."""
    for path, state in verify.of_kind(changes, "changed outs"):
        raise ValueError(
            f"{path} is {state}, and accepting needs the recorded results: run `dvc checkout`, or "
            "`make` before the change"
        )
    checked = {stage: each for stage, each in changes.items() if stage != "check"}
    for path, state in verify.of_kind(checked, "changed deps"):
        if isinstance(state, dict) or not path.startswith(CODE):
            text = f"{path}: {', '.join(state)}" if isinstance(state, dict) else path
            raise ValueError(f"{text} changed, which is not code: run `make`")


def _clone_the_recorded_code(folder: Path) -> Path:
    """The project as of the commit that recorded last, whose code must be that of dvc.lock."""
    locks = [lock for lock in LOCKS if lock.exists()]
    command = "git", "log", "-1", "--format=%H", "--", *map(str, locks)
    commit = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    clone = "git", "clone", "--quiet", "--shared", "--no-checkout", ".", str(folder)
    subprocess.run(clone, check=True)
    subprocess.run(["git", "-C", str(folder), "checkout", "--quiet", commit], check=True)
    for lock in locks:
        shutil.copy(lock, folder / lock)
    changes = json.loads(commands.dvc("--cd", str(folder), "status", "--json"))
    for path, _ in verify.of_kind(changes, "changed deps"):
        if path.startswith(CODE):
            raise ValueError(
                f"{path} of commit {commit[:9]}, the last with another dvc.lock, is not that of "
                "dvc.lock: commit the record together with its code first"
            )
    return folder


def _train(folder: Path, code: Path, *, anew: bool) -> dict[str, str]:
    """Train the shallowest and the deepest network with hidden layers; MD5 of outputs by path."""
    folder.mkdir()
    verify.prepare(folder, code, anew=anew)
    with parameters.edited_params(folder / parameters.PARAMETERS) as document:
        del document["seeds"][SEEDS:]
        depths = {name: m["depth"] for name, m in document["models"].items() if m["depth"]}
    names = sorted({min(depths, key=depths.__getitem__), max(depths, key=depths.__getitem__)})
    for name in names:
        verify.train(folder, name, code)
    outputs = verify.recorded_outputs(*(f"{s}@{n}" for n in names for s in ("train", "evaluate")))
    return {path: files.md5_of(folder / path) for path in outputs}
