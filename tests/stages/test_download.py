"""Stage `download`: each way a source can fail, on a server of its own, and what it writes."""

import gzip
import hashlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import GENUINE, ROOT, SAMPLED_YAML
from torchvision.datasets import MNIST

from isoparam.images.datasets import DATASETS
from isoparam.images.mnist import parse_idx
from stages import download

NAMES = [file.name for file in download.FILES]

# Incompressible, so that half of the packed file is about half of the content.
NOISE = random.Random(0)  # noqa: S311
SHAPES = [(12, 28, 28), (12,), (4, 28, 28), (4,)]
CONTENTS = {
    name: download.idx_header(shape)
    + bytes(
        NOISE.randrange(256 if len(shape) == 3 else 10) for _ in range(torch.Size(shape).numel())
    )
    for name, shape in zip(NAMES, SHAPES, strict=True)
}
TINY = tuple(
    download.File(name, len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())
    for name, content in CONTENTS.items()
)

# The same on every machine: the tests of the later stages rest on it.
DIGITS_MD5 = [
    "f75f8c0627fcd69755fd90bd0a18d8ac",
    "ca6440985bf63350ca8e2903e3c2f017",
    "9ca4decdaf8dc1c41320e2350449faf1",
    "fc022cad5a1667ebf5d6dd6f0892f0f2",
]

PARAMS = """
data: {{dataset: {dataset}, local: {local}, mirrors: {mirrors}}}
budget: 9610
seeds: [0]
train: {{epochs: 1, batch_size: 32, warmup: 0.2, momentum: 0.9, weight_decay: 0.0}}
models: {{L0: {{depth: 0}}}}
"""
PARAMS += SAMPLED_YAML.replace("{", "{{").replace("}", "}}")


def packed(name: str) -> bytes:
    return gzip.compress(CONTENTS[name])


class Handler(BaseHTTPRequestHandler):
    """Answers /SCENARIO/FILE.gz by the method of that name."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    closing: threading.Event

    def do_GET(self) -> None:
        _, scenario, file = self.path.split("/", 2)
        self.asked.append(scenario)
        self.close_connection = True
        getattr(self, scenario)(packed(file.removesuffix(".gz")))

    def log_message(self, *_: object) -> None:
        pass

    def reply(
        self, body: bytes = b"", status: int = 200, length: int | None = None, **headers: str
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def for_ever(self, piece: bytes, pause_seconds: float = 0.0) -> None:
        while not self.closing.wait(pause_seconds):
            self.wfile.write(piece)

    def good(self, body: bytes) -> None:
        self.reply(body)

    def unknown_length(self, body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def called_an_encoding(self, body: bytes) -> None:
        self.reply(body, Content_Encoding="gzip")

    def moved(self, _body: bytes) -> None:
        self.reply(status=302, Location=self.path.replace("moved", "good"))

    def not_found(self, _body: bytes) -> None:
        self.reply(b"<html>not here</html>", status=404)

    def forbidden(self, _body: bytes) -> None:
        self.reply(b"<html>not you</html>", status=403)

    def unavailable(self, _body: bytes) -> None:
        self.reply(b"<html>later</html>", status=503, Retry_After="3600")

    def part(self, body: bytes) -> None:
        self.reply(body[:20], status=206, Content_Range=f"bytes 0-19/{len(body)}")

    def html(self, _body: bytes) -> None:
        self.reply(b"<html>Please log in to this network</html>")

    def nothing(self, _body: bytes) -> None:
        self.reply(b"")

    def hangs_up(self, _body: bytes) -> None:
        pass

    def resets(self, body: bytes) -> None:
        self.reply(body[: len(body) // 2], length=len(body))
        self.wfile.flush()
        # Closed at once, with what was not sent thrown away: the client gets a reset.
        now = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        self.connection.close()

    def broken_chunks(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n" % len(body) + body + b"\r\nno number\r\n")

    def garbage(self, _body: bytes) -> None:
        self.wfile.write(b"\x00\xff\x1b[31m\r\n\r\n")

    def redirect_loop(self, _body: bytes) -> None:
        self.reply(status=302, Location=self.path)

    def redirect_to_file(self, _body: bytes) -> None:
        self.reply(status=302, Location="file:///etc/hostname")

    def redirect_without_end(self, _body: bytes) -> None:
        self.send_response(302)
        self.send_header("Location", self.path)
        self.end_headers()
        self.for_ever(bytes(1 << 16))

    def stalls(self, _body: bytes) -> None:
        self.closing.wait()

    def stalls_midway(self, body: bytes) -> None:
        self.reply(body[: len(body) // 2], length=len(body))
        self.closing.wait()

    def trickles(self, body: bytes) -> None:
        self.reply(body[:20], length=len(body))
        for byte in body[20:]:
            if self.closing.wait(0.1):
                return
            self.wfile.write(bytes([byte]))

    def trickles_headers(self, _body: bytes) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self.for_ever(b"x", 0.1)

    def truncated(self, body: bytes) -> None:
        self.reply(body[: len(body) // 2])

    def altered(self, body: bytes) -> None:
        middle = len(body) // 2
        self.reply(body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :])

    def other_content(self, body: bytes) -> None:
        content = gzip.decompress(body)
        self.reply(gzip.compress(content[:-1] + bytes([content[-1] ^ 1])))

    def shorter_content(self, body: bytes) -> None:
        self.reply(gzip.compress(gzip.decompress(body)[:-1]))

    def length_too_small(self, body: bytes) -> None:
        self.reply(body, length=len(body) - 9)

    def length_too_great(self, body: bytes) -> None:
        self.reply(body, length=len(body) + 9)

    def appended(self, body: bytes) -> None:
        self.reply(body + b"<!-- served by a proxy -->")

    def gzip_bomb(self, _body: bytes) -> None:
        self.reply(gzip.compress(bytes(1 << 26)))

    def empty_gzips_without_end(self, _body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.for_ever(gzip.compress(b"") * 100)


class QuietServer(ThreadingHTTPServer):
    """A server that does not mind clients which hang up."""

    def handle_error(self, *_: object) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*_)  # type: ignore[arg-type]


class Server(NamedTuple):
    """The running server: its address, and the scenarios that were asked for so far."""

    address: str
    asked: list[str]

    def source(self, scenario: str) -> str:
        return f"{self.address}/{scenario}/"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked: list[str] = []
    closing = threading.Event()
    handler = type("BoundHandler", (Handler,), {"asked": asked, "closing": closing})
    with QuietServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield Server(f"http://127.0.0.1:{running.server_port}", asked)
        closing.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FILES", TINY)


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A project folder to run in, and a function that writes its params.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ISOPARAM_DATA", raising=False)

    def write(dataset: str = "mnist", local: str = "null", mirrors: tuple[str, ...] = ()) -> None:
        content = PARAMS.format(dataset=dataset, local=local, mirrors=list(mirrors))
        Path("params.yaml").write_text(content, encoding="utf-8")

    return write


def folder_of_tiny_files(folder: Path) -> str:
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.gz").write_bytes(packed(name))
    return str(folder)


def written() -> dict[str, bytes]:
    """What lies under data, by name, all of it where torchvision looks."""
    files = [path for path in Path("data").rglob("*") if path.is_file()]
    assert {path.parent.as_posix() for path in files} <= {"data/raw/MNIST/raw"}
    return {path.name: path.read_bytes() for path in files}


FAILURES = {
    "not_found": "HTTP status 404",
    "forbidden": "HTTP status 403",
    "unavailable": "HTTP status 503",
    "part": "HTTP status 206",
    "html": "Not a gzipped file",
    "nothing": "the content has 0 bytes",
    "hangs_up": "Remote end closed connection",
    "resets": "",
    "broken_chunks": "",
    "garbage": "",
    "redirect_loop": "Exceeded 5 redirects",
    "redirect_to_file": "No connection adapters",
    "redirect_without_end": "Exceeded 5 redirects",
    "stalls": "timed out",
    "stalls_midway": "timed out",
    "trickles": "not whole after 1 seconds",
    "trickles_headers": "not whole after 1 seconds",
    "truncated": "ended before the end-of-stream",
    "altered": "",
    "other_content": "and MD5",
    "shorter_content": "and MD5",
    "length_too_small": "ended before the end-of-stream",
    "length_too_great": "IncompleteRead",
    "appended": "Not a gzipped file",
    "gzip_bomb": "the content is longer than 9,424 bytes",
    "empty_gzips_without_end": "the .gz file is longer than",
}


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("scenario", FAILURES)
def test_source_that_fails_gives_way_to_the_next(
    scenario: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only where it is the point, or a busy machine could time out elsewhere.
    if scenario.startswith("stalls"):
        monkeypatch.setattr(download, "STALL_LIMIT_SECONDS", 0.5)
    if scenario.startswith("trickles"):
        monkeypatch.setattr(download, "TIME_LIMIT_SECONDS", 1.0)
    sources = [server.source(scenario), server.source("good")]
    received: list[int] = []
    source, content, failures = download.first_good(TINY[0], sources, received.append)
    assert source == server.source("good")
    assert content == CONTENTS[TINY[0].name]
    assert received[-1] == len(content)
    assert server.asked[0] == scenario
    assert server.asked[-1] == "good"
    [failure] = failures
    assert failure.startswith(f"{server.source(scenario)}: ")
    assert FAILURES[scenario] in failure
    assert failure.isprintable()
    assert len(failure) < 300


@pytest.mark.usefixtures("tiny")
def test_refused_connection_and_malformed_address_give_way(server: Server) -> None:
    # Port 1 is reserved, and nothing listens there.
    # Of https there is none.
    encrypted = server.source("good").replace("http://", "https://")
    sources = ["http://127.0.0.1:1/", "http://[/", encrypted, server.source("good")]
    source, _, failures = download.first_good(TINY[0], sources, lambda _: None)
    assert source == sources[-1]
    assert "Connection refused" in failures[0]
    assert "SSL" in failures[2]
    assert [failure.split(": ")[0] for failure in failures] == sources[:3]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("scenario", ["good", "unknown_length", "called_an_encoding", "moved"])
def test_unusual_but_right_answers_are_taken(
    scenario: str, server: Server, params: Callable[..., None]
) -> None:
    params(mirrors=[server.source(scenario)])
    download.main()
    assert written() == CONTENTS


@pytest.mark.usefixtures("tiny")
def test_address_needs_no_slash_at_its_end(server: Server) -> None:
    address = server.source("good").removesuffix("/")
    assert download.first_good(TINY[1], [address], lambda _: None)[1] == CONTENTS[NAMES[1]]


@pytest.mark.usefixtures("tiny")
def test_late_source_stops_reporting(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIME_LIMIT_SECONDS", 0.3)
    with pytest.raises(ValueError, match=r"not whole after 0\.3 seconds"):
        download.first_good(TINY[0], [server.source("trickles")], lambda _: None)
    # The thread that was left behind ends by itself at its next byte.
    deadline = time.monotonic() + 10
    while any("worker" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.usefixtures("tiny")
def test_final_message_names_all_and_nothing_is_left(
    server: Server, params: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "STALL_LIMIT_SECONDS", 0.5)
    scenarios = ["not_found", "html", "stalls", "other_content"]
    params(local="../no-such-folder", mirrors=[server.source(each) for each in scenarios])
    with pytest.raises(ValueError, match=rf"no source gave {NAMES[0]}\.gz") as caught:
        download.main()
    message = str(caught.value)
    lines = message.splitlines()[1:-1]
    assert lines[0] == "  ../no-such-folder: there is no such folder"
    assert [line.strip().split(": ")[0] for line in lines[1:]] == list(
        map(server.source, scenarios)
    )
    assert all(FAILURES[each] in line for each, line in zip(scenarios, lines[1:], strict=True))
    for way_out in ["data.local", "data.dataset", "digits", "make demo", *NAMES]:
        assert way_out in message.splitlines()[-1]
    assert not Path("data").exists()


@pytest.mark.usefixtures("tiny")
def test_no_source_at_all(params: Callable[..., None]) -> None:
    params()
    with pytest.raises(ValueError, match=r"params\.yaml names no source"):
        download.main()


@pytest.mark.usefixtures("tiny")
def test_failure_of_the_last_file_leaves_the_earlier_output(
    tmp_path: Path, params: Callable[..., None]
) -> None:
    local = Path(folder_of_tiny_files(tmp_path / "local"))
    params(local="local")
    download.main()
    (local / f"{NAMES[-1]}.gz").unlink()
    with pytest.raises(ValueError, match=rf"no source gave {NAMES[-1]}\.gz"):
        download.main()
    assert written() == CONTENTS
    assert [path.name for path in Path("data").iterdir()] == ["raw"]


@pytest.mark.usefixtures("tiny")
def test_whole_local_folder_needs_no_mirror(
    tmp_path: Path,
    server: Server,
    params: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    local = folder_of_tiny_files(tmp_path / "with a space")
    params(local=local, mirrors=[server.source("good")])
    download.main()
    assert written() == CONTENTS
    assert not server.asked
    assert capsys.readouterr().err.splitlines() == [f"{name} from {local}" for name in NAMES]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("damage", ["absent folder", "absent file", "not gzip", "cut", "a folder"])
def test_fault_of_the_local_folder_gives_way_file_by_file(
    damage: str,
    tmp_path: Path,
    server: Server,
    params: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if damage != "absent folder":
        file = Path(folder_of_tiny_files(tmp_path / "local")) / f"{NAMES[2]}.gz"
        content = file.read_bytes()
        file.unlink()
        if damage == "not gzip":
            file.write_bytes(b"version https://git-lfs.github.com/spec/v1")
        elif damage == "cut":
            file.write_bytes(content[:-1])
        elif damage == "a folder":
            file.mkdir()
    params(local="local", mirrors=[server.source("good")])
    download.main()
    assert written() == CONTENTS
    assert server.asked == ["good"] * (4 if damage == "absent folder" else 1)
    line = capsys.readouterr().err.splitlines()[2]
    assert line.startswith(f"{NAMES[2]} from {server.source('good')} (not from local: ")


@pytest.mark.usefixtures("tiny")
def test_torchvision_reads_the_output(tmp_path: Path, params: Callable[..., None]) -> None:
    params(local=folder_of_tiny_files(tmp_path / "local"))
    download.main()
    for train, images, labels in [(True, *NAMES[:2]), (False, *NAMES[2:])]:
        dataset = MNIST("data/raw", train=train, download=False)
        assert torch.equal(dataset.data, parse_idx(CONTENTS[images]))
        assert torch.equal(dataset.targets, parse_idx(CONTENTS[labels]).long())


def test_names_are_those_of_torchvision() -> None:
    assert [f"{name}.gz" for name in NAMES] == [name for name, _ in MNIST.resources]


@pytest.mark.skipif(GENUINE is None, reason="needs a folder with MNIST's files")
def test_genuine_files(params: Callable[..., None]) -> None:
    params(local=str(GENUINE))
    download.main()
    train, test = (MNIST("data/raw", train=train, download=False) for train in (True, False))
    assert train.data.shape == (60_000, 28, 28)
    assert test.data.shape == (10_000, 28, 28)
    # The counts of the digits 0 to 9 that the data set is known for.
    assert train.targets.bincount().tolist() == [
        *(5923, 6742, 5958, 6131, 5842),
        *(5421, 5918, 6265, 5851, 5949),
    ]
    assert test.targets.bincount().tolist() == [
        *(980, 1135, 1032, 1010, 982),
        *(892, 958, 1028, 974, 1009),
    ]


def test_digits(params: Callable[..., None]) -> None:
    params(dataset="digits")
    download.main()
    first = written()
    download.main()
    assert written() == first
    sums = [hashlib.md5(first[name], usedforsecurity=False).hexdigest() for name in NAMES]
    assert sums == DIGITS_MD5
    for train, count in [(True, 1500), (False, 297)]:
        dataset = MNIST("data/raw", train=train, download=False)
        assert dataset.data.shape == (count, 8, 8)
        assert (int(dataset.data.min()), int(dataset.data.max())) == (0, 255)
        assert len(dataset.data.unique()) == 17
        assert dataset.targets.unique().tolist() == list(range(10))
        assert min(dataset.targets.bincount().tolist()) > count / 20


def test_the_numbers_of_test_images_are_those_of_the_files() -> None:
    header = 8
    labels = next(file for file in download.FILES if file.name == NAMES[3])
    digits = download.digits()[NAMES[3]]
    assert DATASETS["mnist"].test_images == labels.size_bytes - header
    assert DATASETS["digits"].test_images == len(digits) - header


def command(folder: Path) -> list[str]:
    assert (folder / "params.yaml").is_file()
    return [sys.executable, "-m", "stages.download"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1"}


def test_command_says_what_failed_in_one_message(
    tmp_path: Path, server: Server, params: Callable[..., None]
) -> None:
    params(local="nowhere", mirrors=[server.source("not_found"), "http://127.0.0.1:1/"])
    done = subprocess.run(
        command(tmp_path), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    first, *tried, last = done.stderr.splitlines()
    assert first == f"error: no source gave {NAMES[0]}.gz:"
    assert [line.split(": ")[-1] for line in tried[:2]] == [
        "there is no such folder",
        "HTTP status 404",
    ]
    assert "Connection refused" in tried[2]
    assert last.startswith("Two ways out: ")
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_command_leaves_nothing(
    number: signal.Signals, tmp_path: Path, server: Server, params: Callable[..., None]
) -> None:
    params(mirrors=[server.source("stalls_midway")])
    process = subprocess.Popen(command(tmp_path), env=environment(), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not server.asked:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"Traceback" not in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
