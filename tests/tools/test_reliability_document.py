"""docs/reliability.md: each test that it names exists, and its numbers are those of the tests."""

import ast
import re

from conftest import ROOT

from tests.stages import test_download, test_own
from tests.study import test_bad_input, test_interruptions

TEXT = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and "---" not in line]


def functions_in(name):
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_row_names_tests_that_exist():
    rows = [row for row in ROWS if not row.startswith("| what was tried")]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"\[`(\w+\.py)::(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", row)
        assert named, row
        for file, test, link in named:
            assert link.endswith(f"/{file}")
            assert test in functions_in(link), test


def row_of(test):
    [row] = [row for row in ROWS if f"::{test}`" in row]
    return row


def test_the_numbers_are_those_of_the_tests():
    kills = row_of("test_a_study_that_is_killed_at_random_moments_ends_as_if_undisturbed")
    assert f"| {test_interruptions.KILLS} random moments" in kills
    own = row_of("test_a_file_that_is_wrong_is_refused_in_one_sentence")
    assert f"| {len(test_own.BAD)} and 3 files" in own
    for test in (
        "test_bytes_of_the_parameters_in_disorder_run_or_are_reported",
        "test_a_wrong_value_or_key_runs_or_is_reported_by_its_key",
        "test_raw_files_in_disorder_are_split_or_reported",
    ):
        assert f"| {test_bad_input.HUNDREDS.max_examples} files" in row_of(test)
    assert f"| {len(test_bad_input.HOSTILE)} names" in row_of("test_hostile_names_run_nothing")
    # Refused, malformed and encrypted are a test of their own.
    ways = len(test_download.FAILURES) + 3
    assert f"| {ways} ways" in row_of("test_source_that_fails_gives_way_to_the_next")
