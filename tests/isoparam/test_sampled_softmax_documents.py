"""What documents show runs as it stands there, and the worked examples run at small size."""

import ast
import os
import re
import sys

import pytest
from conftest import ROOT

from examples import debian, language_model, recommender

DOCUMENTS = ["isoparam/sampled_softmax/README.md", "docs/sampled_softmax.md"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_code_of_a_document_runs(document, python):
    text = (ROOT / document).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    # As torchrun has it, for one process.
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    python("-W", "error", "-c", code, **alone)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_links_of_a_document_lead_somewhere(document):
    path = ROOT / document
    text = path.read_text(encoding="utf-8")
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)}
    assert links
    assert not [link for link in links if link and not (path.parent / link).exists()]


def test_the_documented_tests_need_what_is_documented():
    """They also run where nothing else of the project is installed."""
    text = (ROOT / DOCUMENTS[1]).read_text(encoding="utf-8")
    packages = re.search(r"pip install torch==[\d.]+ (.*)", text)[1].split()
    known = {"isoparam", "torch", *packages, *sys.stdlib_module_names}
    files = [*(ROOT / "tests/isoparam/sampled_softmax").glob("*.py")]
    assert len(files) >= 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= known, file


@pytest.mark.parametrize(
    ("example", "column"), [(language_model, "perplexity"), (recommender, "hit_at_10")]
)
def test_an_example_learns_for_each_time(example, column, python, tmp_path):
    options = ("--lists", str(tmp_path), "--seconds", "0.5", "1", "--batch", "64")
    note, head, columns, *lines = python(
        "-m", example.__name__, *options, "--samples", "50"
    ).splitlines()
    assert re.search(r"has no \w+, so they are generated: try `apt-get update", note)
    rows = [dict(zip(columns.split(","), line.split(","), strict=True)) for line in lines]
    assert [row["loss"] for row in rows] == 2 * list(example.LOSSES)
    assert [row["processor_s"] for row in rows] == [
        seconds for seconds in ("0.5", "1") for _ in example.LOSSES
    ]
    classes = int(re.search(r"([\d,]+)(?: different| that it)", head)[1].replace(",", ""))
    for row in rows:
        assert int(row["steps"]) > 0
        # A guess, for which all classes are alike, has a perplexity of their number.
        found, guess = (
            float(row[column]),
            {"perplexity": classes, "hit_at_10": 10 / classes}[column],
        )
        assert 1 < found < guess if column == "perplexity" else found > guess


LISTS = {
    "x_i18n_Translation-en": """Package: a
Description-md5: 1
Description-en: Play 2 games
 With rules.

Package: b
Description-md5: 1
Description-en: Play 2 games
 With rules.
""",
    "x_binary-amd64_Packages": """Package: a
Depends: libc6 (>= 2.34), libx11-6 | libx11-7,
 python3:any
Recommends: libc6

Package: b
""",
}


@pytest.mark.skipif(not os.access(debian.HELPER, os.X_OK), reason="there is no apt here")
def test_apts_lists_are_read(tmp_path):
    for name, text in LISTS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert debian.descriptions(tmp_path) == [["play", "2", "games", "with", "rules", "."]]
    assert debian.dependencies(tmp_path) == {"a": ["libc6", "libx11-6", "python3"], "b": []}


def test_generated_words_are_skewed_and_follow_each_other():
    words = [word for sentence in debian.generated_sentences() for word in sentence]
    first = words.count("word0") / len(words)
    assert 0.02 < first < 0.2
    assert debian.generated_sentences() == debian.generated_sentences()
    needed = debian.generated_dependencies()
    assert len(needed) == 1500
    assert min(map(len, needed.values())) >= 1
