"""What the tests of the library share: it runs without the rest of the project, as do they."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest


def slow(fixture: Callable[..., Any]) -> Callable[..., Any]:
    """Mark the tests that use a fixture: `make test` leaves them out."""
    fixture.__dict__["slow"] = True
    return fixture


@pytest.fixture
@slow
def side_by_side() -> Callable[..., list[str]]:
    """Runs some code in a process of its own for each list of arguments; what they print."""

    def run(code: str, *arguments: list[str]) -> list[str]:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, *each],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for each in arguments
        ]
        outputs = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0] * len(processes), outputs
        return [out for out, _ in outputs]

    return run


@pytest.fixture
def dynamo() -> Iterator[Any]:
    """The front of torch.compile, which has seen nothing."""
    dynamo = pytest.importorskip("torch._dynamo")
    dynamo.reset()
    yield dynamo
    dynamo.reset()


@pytest.fixture
@slow
def compiler(dynamo: Any) -> Any:
    """All of torch.compile: its default compiler writes C++."""
    if not shutil.which("c++"):
        pytest.skip("the default compiler needs one of C++")
    return dynamo
