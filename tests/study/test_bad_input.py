"""Bad input: hundreds of mutated params.yaml and raw files, hostile names, nothing unpickled."""

import ast
import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Project, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline import parameters
from stages import check, download, split

COMMITTED = (ROOT / "params.yaml").read_bytes()
DOCUMENT = YAML(typ="safe").load(COMMITTED)
RATES = (ROOT / "learning_rates.yaml").read_bytes()

# What a reader of params.yaml cannot know.
JARGON = ("Traceback", "For further information", "Value error", "pydantic", "validation error")

# One draw for each of hundreds of files, the same in each run.
HUNDREDS = settings(derandomize=True, database=None, deadline=None, max_examples=200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder to run a stage in, with something of an earlier run."""
    path = tmp_path_factory.mktemp("bad")
    (path / "models").mkdir()
    (path / "models" / "earlier").write_text("result", encoding="utf-8")
    before = Path.cwd()
    os.chdir(path)
    yield path
    os.chdir(before)


def fault_of(folder, content):
    """What the stage check says of a params.yaml; None if nothing. It touches nothing."""
    parameters.PARAMETERS.write_bytes(content)
    parameters.LEARNING_RATES.write_bytes(RATES)
    reported = None
    try:
        check.main()
    except ValueError as error:
        reported = str(error)
        assert type(error) is ValueError  # noqa: PT017 (it may not raise)
        for line in reported.splitlines():
            assert line.startswith(("params.yaml", "learning_rates.yaml has no learning rate of "))
            assert len(line) < 1000
        assert not any(word in reported for word in JARGON if word.encode() not in content)
    files = {path for path in folder.rglob("*") if path.is_file()}
    assert files == {
        folder / name for name in ("params.yaml", "learning_rates.yaml", "models/earlier")
    }
    assert (folder / "models" / "earlier").read_text(encoding="utf-8") == "result"
    assert parameters.PARAMETERS.read_bytes() == content
    return reported


# Marks of YAML, tags, numbers of other kinds, and bytes that are no UTF-8.
PIECES = [
    *(b":", b"- ", b"[", b"]", b"{", b"}", b",", b'"', b"'", b"\n", b"\n\n", b"\t", b"  ", b"#"),
    *(b"!!int ", b"!!float ", b"!!bool ", b"!!python/object:os.system ", b"!x ", b"&a ", b"*a"),
    *(b"---\n", b"...\n", b"%TAG", b"|", b">", b"? ", b"<<: ", b"~", b".nan", b".inf", b"1e400"),
    *(b"0x", b"0o", b"_", b"-", b"9" * 400, b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\"),
]
EDITS = st.lists(
    st.tuples(
        st.integers(0, len(COMMITTED) - 1),
        st.integers(0, 40),
        st.sampled_from(PIECES) | st.binary(max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@HUNDREDS
@given(EDITS)
def test_bytes_of_the_parameters_in_disorder_run_or_are_reported(folder, edits):
    content = COMMITTED
    for start, removed, added in edits:
        content = content[:start] + added + content[start + removed :]
    fault_of(folder, content)


def paths_in(node, path=()):
    if path:
        yield path
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in children if isinstance(node, dict | list) else ():
        yield from (
            paths_in(child, (*path, key)) if isinstance(child, dict | list) else [(*path, key)]
        )


PATHS = list(paths_in(DOCUMENT))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["mnist", "digits", "cuda", "full", "a;b", "../x", "$(x)", "x" * 1000]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(["depth", "L1"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@HUNDREDS
@given(st.sampled_from(PATHS), st.sampled_from(["replace", "remove", "rename"]), VALUES)
def test_a_wrong_value_or_key_runs_or_is_reported_by_its_key(folder, path, way, value):
    document = copy.deepcopy(DOCUMENT)
    section = document
    for key in path[:-1]:
        section = section[key]
    last = path[-1]
    if way == "replace":
        section[last] = value
    else:
        kept = section.pop(last)
        if way == "rename" and isinstance(section, dict):
            section[f"{last}x"] = kept
    reported = fault_of(folder, json.dumps(document).encode())
    if reported is None:
        return
    # A list's items have no names; a model without a learning rate is named by the file of those.
    keys = [key for key in path[:2] if isinstance(key, str)]
    if reported.startswith("learning_rates.yaml"):
        assert path[0] == "models"
    else:
        assert all(key in reported for key in keys)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 3_000,
        b"{a: " * 3_000,
        b"data: &a [*a]",
        b'budget: !!int ""',
        b"budget: !!bool x",
        b'budget: "\\U00110000"',
        b"budget: 2020-01-01T99:99:99Z",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_what_yaml_parsers_trip_over_is_reported(folder, content):
    reported = fault_of(folder, content)
    assert reported.startswith("params.yaml")


# Raw files.


def raw_files():
    contents = {}
    for prefix, count in (("train", 12), ("t10k", 3)):
        contents[f"{prefix}-images-idx3-ubyte"] = download.idx_header((count, 8, 8)) + bytes(
            number * 7 % 256 for number in range(count * 64)
        )
        contents[f"{prefix}-labels-idx1-ubyte"] = download.idx_header((count,)) + bytes(
            number % 10 for number in range(count)
        )
    return contents


RAW = raw_files()


def split_fault(folder, name, content):
    """What the stage split says of one file among whole ones; None if nothing."""
    digits = copy.deepcopy(DOCUMENT)
    digits["data"]["dataset"] = "digits"
    parameters.PARAMETERS.write_text(json.dumps(digits), encoding="utf-8")
    shutil.rmtree(folder / "data", ignore_errors=True)
    split.RAW.mkdir(parents=True)
    for other, whole in RAW.items():
        (split.RAW / other).write_bytes(content if other == name else whole)
    reported = None
    try:
        split.main()
    except ValueError as error:
        reported = str(error)
        assert reported.startswith(f"data/raw/MNIST/raw/{name.split('-')[0]}-*: ")
        assert "\n" not in reported
        assert not split.OUT.exists()
    shutil.rmtree(folder / "data")
    return reported


@pytest.mark.parametrize("prefix", ["train", "t10k"])
@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("images-idx3", lambda w: b"\x00\x00\x0d\x03" + w[4:], "starts with 00 00 08"),
        ("images-idx3", lambda w: b"\x00\x00\x08\x01" + w[4:], "an idx file of shape ["),
        ("labels-idx1", lambda w: b"\x03\x08\x00\x00" + w[4:], "starts with 00 00 08"),
        ("images-idx3", lambda w: w[:7] + bytes([w[7] + 1]) + w[8:], "an idx file of shape ["),
        ("labels-idx1", lambda w: w[:7] + bytes([w[7] - 1]) + w[8:-1], "labels (N,), N of at"),
        ("labels-idx1", lambda w: w[:-1] + b"\xff", "labels must lie in [0, 10), got 255"),
        ("labels-idx1", lambda w: w[:-1] + b"\x0a", "labels must lie in [0, 10), got 10"),
        ("images-idx3", lambda w: w[:8] + b"\0\0\0\4\0\0\0\x10" + w[16:], None),
        ("images-idx3", lambda w: w[:8] + b"\0\0\0\7\0\0\0\7" + w[16 : 16 + 49 * w[7]], "64 pixel"),
    ],
)
def test_raw_files_with_a_fault_are_reported(folder, prefix, kind, change, message):
    name = f"{prefix}-{kind}-ubyte"
    reported = split_fault(folder, name, change(RAW[name]))
    assert (reported is None) if message is None else (message in reported)


@HUNDREDS
@given(st.sampled_from(sorted(RAW)), st.integers(0, 900), st.integers(0, 40), st.binary(max_size=9))
def test_raw_files_in_disorder_are_split_or_reported(folder, name, start, removed, added):
    content = RAW[name][:start] + added + RAW[name][start + removed :]
    reported = split_fault(folder, name, content)
    assert reported is not None or len(content) == len(RAW[name])


# Names, and what runs code.

HOSTILE = ["L1; touch pwned", "$(touch pwned)", "`touch pwned`", "L1 L2", "../L1", "'", "-h\n"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_a_shell_could_run_are_no_names(folder, name):
    document = copy.deepcopy(DOCUMENT)
    document["models"][name] = {"depth": 0}
    reported = fault_of(folder, json.dumps(document).encode())
    assert reported.startswith("params.yaml: models.")
    assert "String should match pattern" in reported


def call(folder, command):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture(scope="module")
@slow
def study(digits, strict, tmp_path_factory):
    """A copy of the finished study on digits."""
    del strict
    path = tmp_path_factory.mktemp("bad_study") / "study"
    shutil.copytree(digits.folder, path)
    return Project(path)


RESULTS = ("data", "models", "metrics", "plots", "dvc.lock")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("budget:", "bugdet:"), "params.yaml: budget: Field required"),
        (lambda text: text.replace("depth: 3", "depth: three"), "params.yaml: models.L3.depth: "),
        (
            lambda text: text.replace("momentum: 0.9", "momentum: 9"),
            "params.yaml: train.momentum: ",
        ),
        # These are DVC's own words.
        (lambda text: text.replace("models:", "model:"), "Could not find 'models'"),
        (lambda text: text + "\n[", "YAML file structure is corrupted"),
    ],
)
def test_dvc_repro_with_wrong_parameters_touches_nothing(study, change, message):
    before = study.content(*RESULTS)
    params = study.folder / "params.yaml"
    text = params.read_text(encoding="utf-8")
    assert change(text) != text
    try:
        params.write_text(change(text), encoding="utf-8")
        done = call(study.folder, ["dvc", "repro"])
    finally:
        params.write_text(text, encoding="utf-8")
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    assert study.content(*RESULTS) == before


def test_hostile_names_run_nothing(study):
    """Neither as an argument of a stage nor as a model that DVC makes stages of."""
    before = study.content(".")
    for name in HOSTILE[::3]:
        done = call(study.folder, [sys.executable, "-m", "stages.evaluate", "--", name])
        assert done.stdout.startswith(f"error: params.yaml has no model {name!r} under models")
        assert done.returncode == 1
    params, rates = (study.folder / name for name in ("params.yaml", "learning_rates.yaml"))
    texts = params.read_text(encoding="utf-8"), rates.read_text(encoding="utf-8")
    try:
        with parameters.edited_params(params) as document:
            document["models"][HOSTILE[0]] = {"depth": 0}
        rates.write_text(f"{texts[1]}{HOSTILE[0]}: 0.1\n", encoding="utf-8")
        for command in (
            ["dvc", "repro", "--keep-going"],
            ["dvc", "repro", "--single-item", "--force", f"train@{HOSTILE[0]}"],
        ):
            done = call(study.folder, command)
            assert done.returncode != 0
            assert "error: params.yaml: models.L1; touch pwned: String should match" in done.stdout
            assert not list(study.folder.rglob("pwned"))
    finally:
        params.write_text(texts[0], encoding="utf-8")
        rates.write_text(texts[1], encoding="utf-8")
    assert study.run("dvc", "repro")
    after = study.content(".")
    changed = {name for name in before if after.get(name) != before[name]}
    assert not [name for name in changed if not name.startswith((".dvc/", ".git/"))]


SOURCES = sorted(
    path.relative_to(ROOT)
    for folder in ("isoparam", "pipeline", "stages", "tools", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
# They load objects, which may run code, or run code themselves.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {
    *("torch.load", "torch.hub.load", "np.load", "numpy.load", "pd.read_pickle"),
    *("pandas.read_pickle", "os.system", "os.popen", "eval", "exec", "compile", "__import__"),
}


def dangers_in(source):
    """What in a source unpickles, runs a text as code, or hands one to a shell."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [name for name in names if name.split(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            without_pickle = name == "np.load" and "allow_pickle=False" in ast.unparse(node)
            found += [name] if name in CALLS and not without_pickle else []
            for keyword in node.keywords:
                value = ast.unparse(keyword.value)
                if keyword.arg in {"shell", "allow_pickle"} and value != "False":
                    found.append(f"{keyword.arg}={value}")
                if keyword.arg == "typ" and value != "'safe'":
                    found.append(f"typ={value}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_source_unpickles_or_starts_a_shell(path):
    assert dangers_in((ROOT / path).read_text(encoding="utf-8")) == []


def test_weights_are_read_by_safetensors_alone():
    readers = {
        path.as_posix()
        for path in SOURCES
        if path.parts[0] != "tests" and "safetensors import" in (ROOT / path).read_text()
    }
    assert readers == {"isoparam/images/files.py", "pipeline/trainings.py", "stages/aggregate.py"}
