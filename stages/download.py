"""Stage `download`: MNIST's four files, or another data set in their format, in data/raw.

A file of MNIST counts only if its content has the right MD5 sum; a source that fails in whatever
way, or takes too long, gives way to the next. Nothing is written before all files are there.
"""

import gzip
import hashlib
import os
import random
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from pipeline import commands, files, parameters

if TYPE_CHECKING:
    from numpy import ndarray

RAW = Path("data/raw")


class File(NamedTuple):
    """A file of the data set: its name, and the length and MD5 sum of its content."""

    name: str
    size_bytes: int
    md5: str


# torchvision.datasets.MNIST reads these. Its own download is not used: it has no time-out, stops at
# the first source that sends a damaged file, and importing it takes seconds.
FILES = (
    File("train-images-idx3-ubyte", 16 + 60_000 * 784, "6bbc9ace898e44ae57da46a324031adb"),
    File("train-labels-idx1-ubyte", 8 + 60_000, "a25bea736e30d166cdddb491f175f624"),
    File("t10k-images-idx3-ubyte", 16 + 10_000 * 784, "2646ac647ad5339dbf082846283269ea"),
    File("t10k-labels-idx1-ubyte", 8 + 10_000, "27ae3e4e09519cfbb04c329615203637"),
)

# Fashion-MNIST has files of the same names and lengths.
FASHION_MD5 = (
    "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "9018921c3c673c538a1fc5bad174d6f9",
    "8181f5470baa50b63fa0f6fddb340f0a",
    "15d484375f8d13e6eb1aabb0c3f46965",
)
# Debian's package dataset-fashion-mnist puts them here; the address is that of its authors.
FASHION_SOURCES = (
    "/usr/share/datasets/fashion-mnist",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
GZIP_MAGIC = b"\x1f\x8b"

# Limits for one file from one source, and for each wait for an answer or for more bytes.
TIME_LIMIT_SECONDS = 180.0
STALL_LIMIT_SECONDS = 15.0
REDIRECT_LIMIT = 5
# Packing lengthens even incompressible content of these sizes by far less than this.
PACKING_BYTES = 1 << 16
CHUNK_BYTES = 1 << 16

DIGITS_TRAINING_IMAGES = 1500
DIGITS_SEED = 0


def main() -> None:
    """Write the raw images and labels of the data set in params.yaml to data/raw.

    For mnist and fashion-mnist each file comes from the first source that has it whole: the folder
    in the variable ISOPARAM_DATA, data.local, then data.mirrors, or for fashion-mnist a package of
    Debian's and its makers' address. For digits nothing is downloaded; of own data, data.path is
    copied. For the others torchvision downloads what is in neither folder, from its own addresses.
    """
    params = parameters.read_params()
    data = params.data
    local = [path for path in (os.environ.get("ISOPARAM_DATA"), data.local) if path]
    # DVC runs an experiment in a copy of the project, from which a relative folder lies elsewhere.
    root = os.environ.get("DVC_ROOT", "")
    folders = [path if Path(path).exists() else str(Path(root, path)) for path in local]
    if data.dataset == "mnist":
        contents = _from_sources(FILES, [*folders, *data.mirrors])
    elif data.dataset == "fashion-mnist":
        fashion = [file._replace(md5=md5) for file, md5 in zip(FILES, FASHION_MD5, strict=True)]
        contents = _from_sources(fashion, [*folders, *FASHION_SOURCES])
    elif data.dataset == "digits":
        contents = digits()
    elif data.dataset == "own":
        _copy_own(Path(data.path))
        return
    else:
        contents = _from_torchvision(data.dataset, folders)
    with files.replacing(RAW) as folder:
        (folder / "MNIST" / "raw").mkdir(parents=True)
        for name, content in contents.items():
            (folder / "MNIST" / "raw" / name).write_bytes(content)


def _copy_own(source: Path) -> None:
    """Copy an .npz file, or a folder, as data/raw/own."""
    if not source.exists():
        raise ValueError(f"data.path is {source}, and there is no such file or folder")
    with files.replacing(RAW) as folder:
        folder.mkdir()
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, folder / "own")


def _from_sources(wanted: Sequence[File], sources: Sequence[str]) -> dict[str, bytes]:
    """The content of the files by name, each from the first of the sources that has it whole."""
    contents: dict[str, bytes] = {}
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        for file in wanted:
            task = bar.add_task(file.name, total=file.size_bytes)
            source, contents[file.name], failures = first_good(
                file,
                sources,
                lambda count, task=task: bar.update(task, completed=count),  # type: ignore[misc]
            )
            others = "".join(f" (not from {line})" for line in failures)
            console.print(f"{file.name} from {source}{others}")
    return contents


def first_good(
    file: File, sources: Sequence[str], received: Callable[[int], None]
) -> tuple[str, bytes, list[str]]:
    """The first source that has the file whole, its content, and why the ones before failed.

    Sources are folders and addresses; `received` is called with the bytes of content so far.
    """
    failures = []
    for source in sources:
        try:
            content = within_time_limit(partial(fetch, file, source, received))
        except Exception as error:  # noqa: BLE001 (whatever a source does, the next one is tried)
            failures.append(f"{source}: {reason(error)}")
        else:
            return source, content, failures
    tried = failures or ["(params.yaml names no source)"]
    names = ", ".join(f"{each.name}.gz" for each in FILES)
    raise ValueError(
        f"no source gave {file.name}.gz:\n"
        + "".join(f"  {line}\n" for line in tried)
        + f"Two ways out: put the four files {names} into a folder, packed or not, and name it in "
        "the variable ISOPARAM_DATA or as data.local in params.yaml; or set data.dataset to "
        "digits, which needs no network (`make demo` runs it)."
    )


def within_time_limit(work: Callable[[], bytes]) -> bytes:
    """What `work` returns or raises, or TimeoutError if that takes too long.

    It runs in a thread, because the time-outs of a socket bound neither the look-up of a name nor
    an answer that comes byte by byte. A thread that is late ends at its next read, or with the
    process.
    """
    result: Future[bytes] = Future()

    def worker() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 (it is raised again by the caller)
            result.set_exception(error)

    threading.Thread(target=worker, daemon=True).start()
    if not wait([result], timeout=TIME_LIMIT_SECONDS).done:
        raise TimeoutError(f"not whole after {TIME_LIMIT_SECONDS:g} seconds")
    return result.result()


def fetch(file: File, source: str, received: Callable[[int], None]) -> bytes:
    """The content of a file from one source; raises what is wrong with it."""
    if not source.startswith(("http://", "https://")):
        return from_folder(file, Path(source), received)
    with (
        _answer(f"{source.rstrip('/')}/{file.name}.gz", file.size_bytes + PACKING_BYTES) as packed,
        gzip.GzipFile(fileobj=packed) as stream,
    ):
        return _read_content(file, stream, received)


def from_folder(file: File, folder: Path, received: Callable[[int], None]) -> bytes:
    """The content of a file from a folder that has it in one of the ways in which people have it.

    Packed or not, whatever its name says; with a dot before idx; in a folder of the same name, as
    from Kaggle; or in MNIST/raw, as torchvision leaves it. The content decides.
    """
    if not folder.is_dir():
        raise FileNotFoundError("there is no such folder")
    name = file.name.replace("-idx", "[-.]idx")
    found = [
        path
        for above in ("", "*/", "*/*/")
        for end in (".gz", "")
        for path in sorted(folder.glob(f"{above}{name}{end}"))
        if path.is_file()
    ]
    failures = []
    for path in found:
        try:
            with path.open("rb") as raw:
                packed = raw.peek(2)[:2] == GZIP_MAGIC
                return _read_content(file, gzip.GzipFile(fileobj=raw) if packed else raw, received)
        except Exception as error:  # noqa: BLE001 (whatever is wrong with it, the next one is tried)
            failures.append(f"{path.relative_to(folder)}: {reason(error)}")
    there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise ValueError(
        "; ".join(failures) or f"{file.name} is missing, packed or not; there is {there}"
    )


def _read_content(
    file: File, stream: BinaryIO | gzip.GzipFile, received: Callable[[int], None]
) -> bytes:
    """The whole content of a stream, which must be that of the file."""
    content = bytearray()
    while chunk := stream.read(CHUNK_BYTES):
        content += chunk
        if len(content) > file.size_bytes:
            raise ValueError(f"the content is longer than {file.size_bytes:,} bytes")
        received(len(content))
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != file.md5:
        raise ValueError(f"the content has {len(content):,} bytes and MD5 {md5}, not {file.md5}")
    return bytes(content)


@contextmanager
def _answer(address: str, limit_bytes: int) -> Iterator[Any]:
    """A server's answer as a file, which raises at the time limit or after too many bytes."""
    deadline, left_bytes = time.monotonic() + TIME_LIMIT_SECONDS, limit_bytes

    def read(count: int) -> bytes:
        nonlocal left_bytes
        if time.monotonic() > deadline:
            raise TimeoutError  # ends the thread, for which nobody waits any more
        # `read` would wait for all the bytes however slowly they come. The file is read as it is,
        # even if the server calls the packing an encoding of the transfer.
        chunk: bytes = response.raw.read1(count, decode_content=False)
        left_bytes -= len(chunk)
        if left_bytes < 0:
            raise ValueError(f"the .gz file is longer than {limit_bytes:,} bytes")
        return chunk

    with requests.Session() as session:
        session.max_redirects = REDIRECT_LIMIT
        session.hooks["response"].append(drop_body_of_redirect)
        with session.get(
            address,
            headers={"Accept-Encoding": "identity"},
            stream=True,
            timeout=STALL_LIMIT_SECONDS,
        ) as response:
            if response.status_code != requests.codes.ok:
                raise ValueError(f"HTTP status {response.status_code}")
            yield SimpleNamespace(read=read)


def drop_body_of_redirect(response: requests.Response, **_: object) -> None:
    """Keep requests from reading the body of a redirect, whatever its length, into memory."""
    if response.is_redirect:
        response.close()


def reason(error: BaseException) -> str:
    """The first cause of an error in one printable line: libraries wrap it several times over."""
    while cause := error.__cause__ or (not error.__suppress_context__ and error.__context__):
        error = cause
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return "".join(filter(str.isprintable, " ".join(text.split())))[:200]


def digits() -> dict[str, bytes]:
    """The content of four files of the same names for scikit-learn's digits.

    1,797 images of 8 by 8 pixels, whose values 0 to 16 become 0 to 255 rounded half up: 1,500 drawn
    at random with a fixed seed to train with, the other 297 to test.
    """
    # Imported here, because it takes seconds and MNIST does not need it.
    from sklearn.datasets import load_digits

    source = load_digits()
    images = ((source.images.astype(int) * 255 + 8) // 16).astype("uint8")
    labels = source.target.astype("uint8")
    # Python promises that these numbers stay the same in later versions; of a shuffle it does not.
    numbers = random.Random(DIGITS_SEED)  # noqa: S311
    order = sorted(range(len(labels)), key=lambda _: numbers.random())
    train, test = order[:DIGITS_TRAINING_IMAGES], order[DIGITS_TRAINING_IMAGES:]
    return idx_files(images[train], labels[train], images[test], labels[test])


def _from_torchvision(dataset: str, folders: Sequence[str]) -> dict[str, bytes]:
    """The content of four files of the same names for a data set that torchvision knows.

    torchvision verifies its downloads by its own MD5 sums, of the packed files. Those that are in
    a folder, or in a root of torchvision there, need no network.
    """
    # Imported here, because it takes seconds and MNIST does not need it.
    from torchvision import datasets

    kind, options = {
        "kmnist": (datasets.KMNIST, {}),
        "qmnist": (datasets.QMNIST, {}),
        "emnist-letters": (datasets.EMNIST, {"split": "letters"}),
    }[dataset]
    arrays = []
    limit = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_LIMIT_SECONDS)  # torchvision sets none
    try:
        with tempfile.TemporaryDirectory() as root:
            raw = Path(root, kind.__name__, "raw")
            raw.mkdir(parents=True)
            for folder in map(Path, folders):
                for place in (folder, folder / kind.__name__ / "raw"):
                    for file in (*place.glob("*.gz"), *place.glob("*.zip")):
                        shutil.copy(file, raw)  # what has another MD5 sum is downloaded over it
            for train in (True, False):
                images = kind(root, train=train, download=True, **options)
                arrays += [images.data.numpy(), images.targets.numpy()]
    except Exception as error:  # noqa: BLE001 (whatever a server or torchvision does)
        raise ValueError(
            f"torchvision could not download {dataset}: {reason(error)}. Put the packed files that "
            "it asks for into a folder and name this in the variable ISOPARAM_DATA or as "
            "data.local in params.yaml"
        ) from None
    finally:
        socket.setdefaulttimeout(limit)
    for index in (0, 2):
        if dataset == "qmnist":  # the other columns identify the writer
            arrays[index + 1] = arrays[index + 1][:, 0]
        if dataset == "emnist-letters":  # lying on their side, and counted from 1
            arrays[index] = arrays[index].swapaxes(1, 2)
            arrays[index + 1] = arrays[index + 1] - 1
    return idx_files(*(array.astype("uint8") for array in arrays))


def idx_files(*arrays: "ndarray") -> dict[str, bytes]:
    """The content of MNIST's four files for images and labels to train with and to test."""
    return {
        file.name: idx_header(array.shape) + array.tobytes()
        for file, array in zip(FILES, arrays, strict=True)
    }


def idx_header(shape: Sequence[int]) -> bytes:
    """The header of an idx file of unsigned bytes, as `parse_idx` describes it."""
    return bytes([0, 0, 8, len(shape)]) + b"".join(length.to_bytes(4, "big") for length in shape)


if __name__ == "__main__":
    commands.run(main)
