"""The pages: their links and anchors resolve, their drawing is that of dvc.yaml, they are short."""

import re
from collections import Counter
from itertools import pairwise, product

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "isoparam/sampled_softmax/README.md"]
README = ROOT / "README.md"


def prose_of(path):
    """A page without its blocks of code, in which `#` and brackets mean other things."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors_of(path):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose_of(path), re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings]
    assert not [slug for slug, count in Counter(slugs).items() if count > 1], path
    return slugs


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_anchors_resolve(path):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", prose_of(path)):
        page = path.parent / target if target else path
        assert page.exists(), target
        assert not anchor or anchor in anchors_of(page), f"{target}#{anchor}"


def test_the_index_lists_every_page():
    index = prose_of(ROOT / "docs/README.md")
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "README.md" or f"]({path.name})" in index, path


def test_the_pages_are_short():
    assert len(README.read_text(encoding="utf-8").split()) <= 900
    pages = (path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert sum(len(page.splitlines()) for page in pages) <= 1300


def names_in(part):
    """The nodes on one side of an arrow, such as `a["label"] & b`."""
    return [re.sub(r"\[.*\]", "", name).strip() for name in part.split("&")]


def drawn(text):
    """Nodes and edges of a Mermaid flowchart."""
    nodes, edges = set(), set()
    for line in text.strip().splitlines()[1:]:
        parts = [names_in(part) for part in line.split("-->")]
        nodes |= {name for part in parts for name in part}
        edges |= {edge for pair in pairwise(parts) for edge in product(*pair)}
    return nodes, edges


def test_the_drawing_is_that_of_the_pipeline():
    stages = {
        name: stage.get("do", stage)
        for name, stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].items()
    }
    outputs = {
        name: [
            next(iter(out)) if isinstance(out, dict) else out
            for kind in ("outs", "metrics", "plots")
            for out in stage.get(kind, [])
        ]
        for name, stage in stages.items()
    }
    # A stage that lists models one by one reads what the stages of one template write.
    reads = {
        name: [re.sub(r"\bL\d\b|\$\{key\}", "*", dep) for dep in stage["deps"]]
        for name, stage in stages.items()
    }
    writes = {
        name: [re.sub(r"\$\{key\}", "*", out) for out in outs] for name, outs in outputs.items()
    }
    edges = {
        (writer, reader)
        for writer, reader in product(stages, repeat=2)
        for out, dep in product(writes[writer], reads[reader])
        if out == dep or out.startswith(f"{dep}/") or dep.startswith(f"{out}/")
    }
    [text] = re.findall(r"```mermaid\n(.+?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert drawn(text) == (set(stages), edges)
    depths = sorted(YAML(typ="safe").load(ROOT / "params.yaml")["models"])
    assert f"train@{depths[0]}..{depths[-1]}" in text
