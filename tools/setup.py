"""The environment .venv from requirements.lock: made, mended, or left alone if nothing is wrong.

`make` runs this file before all else, by any Python 3 and without a package.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

VENV = Path(".venv")
PYTHON = VENV / "bin/python"
LOCK = Path("requirements.lock")
# The record of .venv: its folder, Python, lock file and files. An unfinished one is made again.
READY, UNFINISHED = VENV / "ready", VENV / "unfinished"

VERSION = "import sys; print(*sys.version_info[:2], sys.version)"

# Python runs this line at its start. A dvc that is called by its full path thus finds the `python`
# of its stages, and what the shell sets for other Pythons ends here.
HOOK = (
    "import os, sys; os.environ['PATH'] = os.pathsep.join([os.path.join(sys.prefix, 'bin'), "
    "os.environ.get('PATH', os.defpath)]); "
    "sys.flags.isolated or 'PYTHONSAFEPATH' in os.environ and sys.path.insert(0, os.getcwd()); "
    "[os.environ.pop(name, None) for name in ('PYTHONPATH', 'PYTHONHOME', 'PYTHONSAFEPATH')]\n"
)


def main(*options: str) -> None:
    """Make or mend .venv.

    Args:
        options: "--asked" if the user named this Python; "--repository" to do nothing but to look
            whether git knows this folder.
    """
    if "--repository" in options:
        require_repository()
        return
    # A subprocess ends first: subprocess.run waits for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: ended by a signal"))
    fault = find_fault(asked="--asked" in options)
    if fault is None and ready().get("lock") == digest() and not lost("packages"):
        return
    if fault and sys.version_info < (3, 11):
        sys.exit(
            f"error: {fault}, and isoparam needs Python 3.11 or later; name one as in "
            "'make PYTHON=python3.12'"
        )
    print(
        f"{fault or f'{VENV} is not what {LOCK} lists'}: setting it up. On Linux this downloads "
        "about 2.7 GB, unless a cache has them, and takes 6.6 GB of disk and some minutes.",
        flush=True,
    )
    for name in list(os.environ):
        if name.startswith("PYTHON") or name in {"PIP_USER", "PIP_TARGET", "PIP_PREFIX"}:
            del os.environ[name]
    try:
        if fault:
            clear()
        UNFINISHED.touch()
        READY.unlink(missing_ok=True)
        if fault:
            create()
        install()
        site = Path(ask("import sysconfig; print(sysconfig.get_path('purelib'))") or "")
        (site / "isoparam.pth").write_text(HOOK, encoding="utf-8")
        subprocess.run([PYTHON, "-m", "tools", "plots-page"], check=True)
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        sys.exit(f"error: `{command}` failed; the next `make` begins the set-up again")
    made = {
        "folder": str(VENV.resolve()),
        "python": ask(VERSION),
        "lock": digest(),
        "packages": names_in(site, "*.dist-info"),
        "scripts": names_in(PYTHON.parent, "*"),
    }
    READY.write_text(json.dumps(made, indent=1), encoding="utf-8")
    UNFINISHED.unlink()


def find_fault(*, asked: bool) -> "str | None":
    """The reason to make .venv again, or None."""
    if VENV.exists() and not VENV.is_dir():
        sys.exit(f"error: {VENV} is a file, and a folder of this name is needed: move it")
    if not VENV.exists() or not any(VENV.iterdir()):
        return f"{VENV} is missing"
    version, made, here = ask(VERSION), ready(), str(VENV.resolve())
    if version is None:
        return f"the Python in {VENV} does not start"
    made_of = made.get("python", version).split()
    activate = VENV / "bin/activate"
    script = activate.read_text(encoding="utf-8") if activate.exists() else ""
    scripts = [] if lost("packages") else lost("scripts")  # which come back with their packages
    faults = {
        f"{VENV} is unfinished": UNFINISHED.exists(),
        f"{VENV} has another Python than {sys.executable}": asked
        and version.split()[2:] != sys.version.split(),
        f"{VENV} has a Python before 3.11": tuple(map(int, version.split()[:2])) < (3, 11),
        f"the Python of {VENV} has changed": made_of[:2] != version.split()[:2],
        # One that was made by hand has no READY.
        f"{VENV} is from another folder": made["folder"] != here if made else here not in script,
        f"{VENV} lacks {', '.join(scripts[:1])}": bool(scripts),
    }
    return next((fault for fault, found in faults.items() if found), None)


def ask(code: str) -> "str | None":
    """What the Python in .venv prints; None if it does not start."""
    try:
        done = subprocess.run([PYTHON, "-I", "-c", code], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode().strip()


def ready() -> "dict[str, Any]":
    """What READY says; nothing if it is missing or says nothing."""
    try:
        made = json.loads(READY.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) and {"folder", "python"} <= set(made) else {}


def names_in(folder: Path, pattern: str) -> "list[str]":
    """What was installed there, but for pip, which anybody may upgrade."""
    paths = folder.resolve().glob(pattern)
    return [
        str(path.relative_to(VENV.resolve()))
        for path in paths
        if not path.name.startswith(("pip", "setuptools"))
    ]


def lost(kind: str) -> "list[str]":
    """What was installed and is gone, "packages" or "scripts"."""
    return [name for name in ready().get(kind, []) if not os.path.lexists(VENV / name)]


def digest() -> str:
    """Of the lock file."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def clear() -> None:
    """An empty folder, where the link .venv leads to if it is one."""
    VENV.resolve().mkdir(parents=True, exist_ok=True)
    for path in VENV.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def create() -> None:
    """An environment without packages."""
    # The Python that .venv was made of may be the one in it, which is gone.
    python = getattr(sys, "_base_executable", sys.executable)
    if shutil.which("uv"):
        command = ["uv", "venv", "--quiet", "--allow-existing", "--python", python]
    else:
        command = [python, "-I", "-m", "venv"]
    subprocess.run([*command, str(VENV.resolve())], check=True)


def install() -> None:
    """Install what the lock file lists."""
    if shutil.which("uv"):
        command = ["uv", "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode"]
        subprocess.run([*command, "--python", str(PYTHON), str(LOCK)], check=True)
        return
    if ask("import pip") is None:  # of an environment that uv made
        subprocess.run([str(PYTHON), "-I", "-m", "ensurepip"], check=True)
    command = [str(PYTHON), "-I", "-m", "pip", "install", "--require-hashes", "--no-input"]
    command += ["--requirement", str(LOCK), "--disable-pip-version-check", "--progress-bar", "off"]
    total = len(re.findall("^[^ #]+==", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pip:
        try:
            count = 0
            for line in pip.stdout or ():
                if line.startswith("Collecting"):
                    count += 1
                    if sys.stdout.isatty():
                        print(f"\rpackage {count} of at most {total}", end="", flush=True)
                elif line.startswith("Installing"):
                    print(f"\r{count} packages are here, and are installed now", flush=True)
        except BaseException:
            pip.kill()
            raise
    if pip.returncode:
        raise subprocess.CalledProcessError(pip.returncode, command)


def require_repository() -> None:
    """End with a sentence if this is not a git repository, as after unpacking a ZIP."""
    command = ["git", "rev-parse", "--git-dir"]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError:
        sys.exit("error: git, which lists the files of the project, is not installed")
    reason = done.stderr.decode(errors="replace").strip()
    if "not a git repository" in reason:
        reason = (
            "this folder is not a git repository, and git lists the files of the project: run "
            "`git init` here"
        )
    if "dubious ownership" in reason:
        reason = (
            "this folder is another user's, and git does not trust it: run "
            f"`git config --global --add safe.directory {Path.cwd()}`, or clone it anew"
        )
    if done.returncode:
        sys.exit(f"error: {reason}")


if __name__ == "__main__":
    main(*sys.argv[1:])
