"""What the guard finds to be equal, how it names what is not, and where it says nothing."""

import platform

import pytest
import torch

from pipeline import files
from tools import guard

TABLE = ["model,loss,note", "L0,0.5,", "L1,-1.25e-05,x", ""]
RECORD = guard.Record(
    versions={"torch": "2.1", "matplotlib": "3.1", "pillow": "11"},
    hashes={"models/a.safetensors": "aa", "plots/b.png": "bb"},
    texts={"plots/t.csv": TABLE, "metrics/m.json": ["{", '  "loss": 0.123,', '  "n": 3', "}", ""]},
)


def changed(path, line, text):
    lines = RECORD["texts"][path].copy()
    lines[line - 1] = text
    return RECORD | {"texts": RECORD["texts"] | {path: lines}}


@pytest.mark.parametrize(
    ("path", "line", "text"),
    [
        ("plots/t.csv", 2, "L0,0.5000000000004,"),
        ("plots/t.csv", 3, "L1,-1.2500000000004e-05,x"),
        ("metrics/m.json", 2, '  "loss": 0.12300000000001,'),
    ],
)
def test_the_last_digits_do_not_count(path, line, text):
    assert guard.differences(RECORD, changed(path, line, text)) == []


def test_what_cancels_is_equal_to_the_last_bit_of_1():
    assert guard._equal("2e-16", "-3e-16")
    assert not guard._equal("2e-15", "-3e-15")


@pytest.mark.parametrize("name", ["p_adjusted", "L8"])
def test_p_that_is_1_less_an_integral_is_equal_to_13_decimals(name):
    line = f'      "{name}": '
    assert guard._equal(f"{line}2.169174881e-04", f"{line}2.16917488109e-04")
    assert not guard._equal(f"{line}2.169174881e-04", f"{line}2.169174901e-04")
    assert not guard._equal('      "p": 2.169174881e-04', '      "p": 2.16917488109e-04')


@pytest.mark.parametrize(
    ("path", "line", "text", "expected"),
    [
        (
            "plots/t.csv",
            2,
            "L0,0.500000000004,",
            ["plots/t.csv, line 2, column loss: '0.500000000004' here, '0.5' recorded"],
        ),
        (
            "plots/t.csv",
            3,
            "L2,-1.25e-05,y",
            [
                "plots/t.csv, line 3, column model: 'L2' here, 'L1' recorded",
                "plots/t.csv, line 3, column note: 'y' here, 'x' recorded",
            ],
        ),
        ("plots/t.csv", 2, "L0", ["plots/t.csv, line 2: 'L0' here, 'L0,0.5,' recorded"]),
        ("plots/t.csv", 4, "L2", ["plots/t.csv, line 4: 'L2' here, '' recorded"]),
        # The same numbers in another form, sign or type.
        (
            "plots/t.csv",
            2,
            "L0,0.50,",
            ["plots/t.csv, line 2, column loss: '0.50' here, '0.5' rec"],
        ),
        ("plots/t.csv", 3, "L1,1.25e-05,x", ["plots/t.csv, line 3, column loss: '1.25e-05' here"]),
        (
            "metrics/m.json",
            3,
            '  "n": 3.0',
            ["""metrics/m.json, line 3: '"n": 3.0' here, '"n": 3'"""],
        ),
        ("metrics/m.json", 3, '   "n": 3', ["""metrics/m.json, line 3: '"n": 3' here, '"n": 3'"""]),
    ],
)
def test_what_differs_is_named(path, line, text, expected):
    found = guard.differences(RECORD, changed(path, line, text))
    assert len(found) == len(expected)
    assert all(a.startswith(b) for a, b in zip(found, expected, strict=True))


def test_a_longer_table_is_another():
    longer = RECORD | {"texts": RECORD["texts"] | {"plots/t.csv": [*TABLE, "L2"]}}
    expected = ["plots/t.csv, line 5: 'L2' here, '' recorded"]
    assert guard.differences(RECORD, longer) == expected


def test_other_hashes_and_other_files_are_named():
    found = RECORD | {"hashes": {"models/a.safetensors": "ab", "plots/c.png": "bb"}}
    assert guard.differences(RECORD, found) == [
        "models/a.safetensors: another hash",
        "plots/b.png is missing",
        "plots/c.png is not in the record",
    ]
    assert guard.differences(*map(guard.without_figures, (RECORD, found))) == [
        "models/a.safetensors: another hash"
    ]


def test_outputs_are_hashed_or_kept_as_text(tmp_path):
    for name in ("models/L0/history.csv", "metrics/m.json", "plots/a.png", "data/.gitignore"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("1\n")
    found = guard.outputs(tmp_path)
    assert set(found["hashes"]) == {"models/L0/history.csv", "plots/a.png"}
    assert found["texts"] == {"metrics/m.json": ["1", ""]}


@pytest.fixture
def promised(monkeypatch):
    """A processor and packages for which the guard compares everything."""
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(guard, "version", RECORD["versions"].__getitem__)


@pytest.mark.usefixtures("promised")
def test_where_bits_are_promised_nothing_is_left_out():
    assert guard.not_comparable(RECORD) is None
    assert guard.figures_not_comparable(RECORD) is None


@pytest.mark.usefixtures("promised")
@pytest.mark.parametrize(
    ("module", "name", "value", "expected"),
    [
        (platform, "system", "Darwin", "this is Darwin on x86_64 "),
        (platform, "machine", "aarch64", "this is Linux on aarch64 "),
        (torch.backends.cpu, "get_cpu_capability", "DEFAULT", "(torch uses DEFAULT)"),
    ],
)
def test_elsewhere_it_says_why_it_compares_nothing(monkeypatch, module, name, value, expected):
    monkeypatch.setattr(module, name, lambda: value)
    assert expected in guard.not_comparable(RECORD)
    assert expected in guard.not_comparable(None)
    monkeypatch.setattr(guard, "read_record", lambda: RECORD)
    with pytest.raises(ValueError, match="the guard cannot compare here: strict mode promises"):
        guard.main()


@pytest.mark.usefixtures("promised")
def test_another_version_of_a_package_leaves_out_what_depends_on_it():
    older = RECORD | {"versions": {"torch": "2.0", "matplotlib": "3.0", "pillow": "11"}}
    assert guard.not_comparable(older) == "torch is 2.1 here, 2.0 in the record"
    assert guard.figures_not_comparable(older) == "matplotlib is 3.1 here, 3.0 in the record"


def test_a_missing_or_damaged_record_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"digits\.json is missing or damaged: run `git checkout"):
        guard.read_record()
    files.write_json(guard.RECORD, {"hashes": {}})
    with pytest.raises(ValueError, match=r"digits\.json is missing or damaged: run `git checkout"):
        guard.read_record()
    files.write_json(guard.RECORD, dict(RECORD))
    assert guard.read_record() == RECORD


@pytest.mark.usefixtures("promised")
def test_the_command_names_what_differs_and_writes_the_record(tmp_path, monkeypatch, capsys):
    """With a study whose run is only pretended."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(guard.demo, "make", lambda *_: None)
    monkeypatch.setattr(guard, "run_stages", lambda _: None)
    monkeypatch.setattr(guard, "outputs", lambda _: RECORD)
    guard.main(record=True)
    guard.main()
    assert capsys.readouterr().out == "guard: identical: 2 hashes, 2 tables\n"
    monkeypatch.setattr(guard, "outputs", lambda _: changed("plots/t.csv", 2, "L0,0.6,"))
    with pytest.raises(ValueError, match=r"other outputs:\n  plots/t\.csv, line 2, column loss: "):
        guard.main()
