"""A sample of all crash points; `python -m tests.crashes.search` searches all of them."""

import re
import shutil
import sys

import pytest
from conftest import ROOT, Project, slow


@pytest.fixture
@slow
def project():
    """The project itself, of which the search makes copies."""
    if sys.platform != "linux" or not shutil.which("cc"):
        pytest.skip("needs Linux and a C compiler")
    return Project(ROOT)


def test_what_is_killed_at_any_operation_on_a_file_is_mended_by_make_alone(project):
    told = project.run("python", "-m", "tests.crashes.search", "--every", "20")
    ends = re.search(
        r"^(\d+) ends in \d+ s: all results are whole and the same$", told, re.MULTILINE
    )
    assert ends, told
    assert int(ends[1]) > 40
