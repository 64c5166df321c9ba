"""The widths for a budget: printed, handed on as arguments, or written with all else kept."""

from pathlib import Path

import pytest
from conftest import ROOT, SAMPLED_YAML

from pipeline import parameters
from tools import widths

PARAMS = """\
# A tiny study.
data: {dataset: digits}
budget: 300  # of parameters
seeds: [3, 1]
train: {epochs: 2, batch_size: 8, warmup: 0.2, momentum: 0.9, weight_decay: 0.0}
models:
  L0: {depth: 0}
  L1: {depth: 1, width: 4}  # on the budget
  L2: {depth: 2, width: 9}
"""
PARAMS += SAMPLED_YAML


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parameters.PARAMETERS.write_text(PARAMS, encoding="utf-8")
    yield
    assert [path.name for path in Path().iterdir()] == ["params.yaml"]


def written():
    return parameters.PARAMETERS.read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", [40, 80])
def test_the_table_is_printed(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    widths.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["ideal", "para-"],
        ["depth", "width", "width", "meters", "off", "by"],
        ["L0", "0", "650", "+350"],
        # n = 290 / 75 units, and n^2 + 76 n = 290.
        ["L1", "1", "3.87", "4", "310", "+10"],
        ["L2", "2", "3.64", "4", "330", "+30"],
        ["Off", "the", "budget", "in", "params.yaml:", "L2", "9"],
    ]
    assert written() == PARAMS


def test_the_table_of_the_study_fits_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    committed = (ROOT / parameters.PARAMETERS).read_text(encoding="utf-8")
    parameters.PARAMETERS.write_text(committed, encoding="utf-8")
    widths.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["L2", "2", "588.15", "588", "813,802", "-288"] in rows
    assert len(rows) == 2 + 9


def test_the_widths_are_written_and_all_else_is_kept():
    widths.main(write=True)
    assert written() == PARAMS.replace("width: 9", "width: 4")


def test_those_of_another_budget_are_arguments_or_written(capsys):
    widths.main(budget=1000, arguments=True)
    arguments = (
        "--set-param budget=1000 --set-param models.L1.width=13 --set-param models.L2.width="
    )
    assert capsys.readouterr().out == f"{arguments}11\n"
    assert written() == PARAMS
    widths.main(budget=1000, write=True)
    params = parameters.read_params()
    assert (params.budget, [m.width for m in params.models.values()]) == (1000, [None, 13, 11])


def test_committed_parameters_stay_as_they_are():
    committed = (ROOT / parameters.PARAMETERS).read_text(encoding="utf-8")
    parameters.PARAMETERS.write_text(committed, encoding="utf-8")
    widths.main(write=True)
    assert written() == committed
