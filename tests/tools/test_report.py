"""The page of the results: it asks nothing of the network, says what is recorded, and draws it."""

import csv
import json
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from collections import Counter
from html.parser import HTMLParser
from itertools import chain, combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from ruamel.yaml import YAML

from isoparam.budget import layer_sizes, parameters_of
from isoparam.images.mnist import normalise
from isoparam.network.files import load_perceptron, save_perceptron
from isoparam.network.mlp import initialise, layer_views, logits
from isoparam.network.randomness import Stream, stream_of
from pipeline import parameters
from tools import findings, pictures, plots_page, report

# When the charts are there.
CHARTS = (
    '[...document.querySelectorAll(".chart")].every((e) => e.querySelector("svg .role-mark *"))'
)
MEAN = ".role-mark.mark-symbol path"
# Two of the study, so that the test is short.
DRAWN = ("L0", "L2")
# What becomes of the page's own functions.
SCRIPT = """
  const found = { shares: [], prepared: prepare(INK) };
  for (const network of await load()) {
    found.shares.push(IMAGES.map((pixels) => classify(network, pixels)));
  }
  const answered = async () => {
    while (!answers.querySelector("tbody")) await new Promise((resume) => setTimeout(resume, 20));
    const rows = [...answers.querySelectorAll("tbody tr")];
    return rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
  };
  document.querySelector("[data-pixels]").click();
  found.chosen = await answered();
  const pixels = (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return [...data].filter((_, i) => i % 4 == 0);
  };
  found.large = pixels(pad);
  clear();
  const box = pad.getBoundingClientRect();
  const move = (kind, x, y, more) => pad.dispatchEvent(new PointerEvent(kind, {
    bubbles: true, isPrimary: true, clientX: box.left + x, clientY: box.top + y, ...more }));
  const draw = async (...points) => {
    clear();
    points.forEach(([x, y], i) => move(i ? "pointermove" : "pointerdown", x, y));
    move("pointerup", ...points.at(-1));
    const drawn = await answered();
    return { drawn, seen: pixels(seen) };
  };
  // A stroke from top to bottom, and a 7 large, small and in a corner.
  Object.assign(found, await draw([140, 60], [140, 220]));
  found.sevens = [];
  for (const [scale, left, top] of [[1, 80, 40], [0.2, 130, 120], [0.2, 5, 5]]) {
    const corners = [[0, 0], [100, 0], [30, 180]];
    const seven = corners.map(([x, y]) => [left + scale * x, top + scale * y]);
    found.sevens.push((await draw(...seven)).seen);
  }
  // A tap leaves ink; another button and a second finger leave none.
  const inked = () => pixels(pad).filter((level) => level > 127).length;
  await draw([140, 140]);
  found.tap = [inked(), pixels(seen).some((level) => level > 127)];
  clear();
  for (const more of [{ button: 2 }, { isPrimary: false }]) {
    move("pointerdown", 100, 100, more);
    move("pointermove", 150, 150, more);
    move("pointerup", 150, 150, more);
  }
  found.others = inked();
  return found;
"""
# What the eye, a finger and the keyboard meet, once all that folds is open.
SENSES = """
  const found = { dark: matchMedia("(prefers-color-scheme: dark)").matches, width: innerWidth };
  for (const details of document.querySelectorAll("details")) details.open = true;
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => colour.slice(0, 3).map((level) => level / 255)
    .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0.05);
  const contrast = (one, other) => {
    const ratio = luminance(one) / luminance(other);
    return Math.max(ratio, 1 / ratio);
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour[3] == 255) return colour;
    }
  };
  const ratios = (selector, property, keep = () => true) =>
    [...document.querySelectorAll(selector)].filter(keep).map((e) => {
      const style = getComputedStyle(e), paper = behind(e);
      return [`${e.tagName} ${e.textContent.slice(0, 20)}`, contrast(rgb(style[property]), paper)];
    });
  const speaks = (e) => e.checkVisibility() &&
    [...e.childNodes].some((node) => node.nodeType == 3 && node.textContent.trim());
  found.letters = [
    ...ratios("body *:not(script, style, svg *)", "color", speaks),
    ...ratios(".chart svg text", "fill", speaks),
  ];
  found.lines = [
    ...ratios(".chart :is(.mark-line path, .role-mark.mark-rule line)", "stroke"),
    ...ratios(".chart .mark-symbol path", "fill"),
  ];
  const ink = rgb(getComputedStyle(document.body).color);
  found.cells = [...document.querySelectorAll(".chart .mark-rect path")].map((e) => {
    const style = getComputedStyle(e), share = +style.fillOpacity, paper = behind(e);
    const mixed = rgb(style.fill).map((level, i) => share * level + (1 - share) * paper[i]);
    return [e.getAttribute("aria-label"), contrast(ink, mixed)];
  });
  const reached = "a, button, select, summary, [tabindex]";
  found.focus = [...document.querySelectorAll(reached)].map((e) => {
    e.focus({ focusVisible: true });
    const style = getComputedStyle(e);
    return [e.tagName, document.activeElement == e && style.outlineStyle == "solid" &&
      parseFloat(style.outlineWidth), contrast(rgb(style.outlineColor), behind(e.parentElement))];
  });
  found.scrolled = document.documentElement.scrollWidth;
  const right = (e) => e.getBoundingClientRect().right;
  found.outside = [...document.querySelectorAll("figure *, .digits *, .drawing *")]
    .filter((e) => !e.closest("svg") && right(e) > right(e.parentElement) + 1)
    .map((e) => e.outerHTML.slice(0, 80));
  found.squares = [...document.querySelectorAll(".digits img, #pad, #seen")]
    .map((e) => e.clientWidth / e.clientHeight);
  const choose = (id, choice) => {
    const select = document.querySelector(`#${id} select[name="only"]`);
    select.selectedIndex = choice;
    select.dispatchEvent(new Event("change"));
    return () => [...document.querySelectorAll(`#${id} .mark-line path`)]
      .map((e) => +getComputedStyle(e).opacity * +getComputedStyle(e).strokeOpacity);
  };
  const chosen = [choose("curves", 4), choose("instance", 2)];
  while (!chosen.every((read) => read().includes(0.08))) {
    await new Promise((resume) => setTimeout(resume, 20));
  }
  found.chosen = chosen.map((read) => read());
  return found;
"""


TABLE, CURVE = "plots/depth_accuracy.csv", "plots/curves/L3.csv"
PICTURES = ("plots/depth_accuracy.png", "plots/calibration.png")
DVC_CHARTS = (
    'document.querySelectorAll("main svg .mark-symbol path").length > 40 && '
    "[...document.images].every((image) => image.naturalWidth)"
)
# What is to be seen on a page of `dvc plots diff`.
DVC_PAGE = """
  const all = (root, selector) => [...root.querySelectorAll(selector)];
  const texts = (root, selector) => all(root, selector).map((e) => e.textContent);
  const charts = all(document, "main svg.marks").map((svg) => ({
    titles: texts(svg, ".role-axis-title text"),
    labels: texts(svg, ".role-axis-label text"),
    legend: all(svg, ".role-legend-symbol path").map((e) => +(getComputedStyle(e).opacity)),
    points: all(svg, ".role-mark.mark-symbol path").map((e) => e.getAttribute("transform")),
    lines: all(svg, ".role-mark .mark-line path, .role-mark.mark-line path")
      .map((e) => e.getAttribute("stroke-width")),
    clipped: all(svg, "[clip-path]").length,
  }));
  const pictures = all(document, "img").map((image) => {
    const { top, left, right } = image.getBoundingClientRect();
    return [Math.round(top), left, right];
  });
  return { charts, pictures, scrolled: document.documentElement.scrollWidth };
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the record, untrained networks of two depths, and the page."""
    folder = tmp_path_factory.mktemp("report")
    for name in ("metrics", "plots", "record"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("params.yaml", "learning_rates.yaml", "dvc.lock"):
        shutil.copy(ROOT / name, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        params = parameters.read_params()
        for name in DRAWN:
            sizes = sizes_of(name)
            count = parameters_of(sizes)
            layers = layer_views(torch.zeros(1, count), sizes)
            initialise(layers, [stream_of(5, Stream.WEIGHTS)])
            Path("models/depths", name).mkdir(parents=True)
            seed = params.seeds[0]
            metadata = {"seed": seed, "sizes": sizes, "mean": 33.0, "deviation": 78.0}
            save_perceptron(Path(f"models/depths/{name}/seed-{seed}.safetensors"), layers, metadata)
        report.main()
    return folder


@pytest.fixture(autouse=True)
def in_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report/index.html").read_text(encoding="utf-8")


def sizes_of(name):
    model = parameters.read_params().models[name]
    return layer_sizes(model.depth, model.width or 0, 784, 10)


class References(HTMLParser):
    """All that a page would load or lead to, and what a reader with other senses needs."""

    def __init__(self, page) -> None:
        super().__init__()
        self.targets, self.headings, self.images, self.ids = [], [], [], []
        self.language = None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        names = ("src", "href", "srcset", "action", "poster", "data")
        self.targets += [attributes[name] for name in names if name in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.images += [attributes] if tag == "img" else []
        self.language = attributes["lang"] if tag == "html" else self.language


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_loads_nothing(page):
    references = References(page)
    for target in references.targets:
        assert re.match(r"data:|#", target), target
        assert not target.startswith("#") or target[1:] in references.ids
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert not re.search(r"url\(|@import", style)
    assert str(ROOT) not in page


def test_the_page_can_be_read_in_other_ways(page):
    references = References(page)
    assert references.language == "en"
    assert references.headings[0] == 1
    assert references.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(references.headings))
    assert references.images
    assert all(image["alt"] for image in references.images)
    assert len(set(references.ids)) == len(references.ids)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_letters_have_contrast(scheme):
    style = (report.SOURCES / "style.css").read_text(encoding="utf-8")
    colours = re.findall(r"--(\w+): light-dark\(#(\w{6}), #(\w{6})\)", style)
    luminance = {}
    for name, *pair in colours:
        levels = [int(pair[scheme][i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
        luminance[name] = np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05
    for paper in ("paper", "raised"):
        for name in ("ink", "muted", "accent", "warm"):
            ratio = luminance[name] / luminance[paper]
            assert max(ratio, 1 / ratio) > 4.5, (name, paper)  # of WCAG, level AA


def test_the_numbers_are_those_of_the_metrics(page):
    data = data_of(page)
    for row in data["depth"]:
        m = json.loads((ROOT / f"metrics/depths/{row['model']}.json").read_text(encoding="utf-8"))
        keys = {"accuracy": "test_accuracy", "accuracy_lo": "test_lo", "accuracy_hi": "test_hi"}
        keys |= {"parameters": "parameters", "validation_accuracy": "val_accuracy"}
        assert {key: row[key] for key in keys} == {key: m[name] for key, name in keys.items()}
        half = 50 * (m["test_hi"] - m["test_lo"])
        assert f'<td style="text-align:right">{100 * m["test_accuracy"]:.2f} ± {half:.2f}' in page
    recorded = json.loads((ROOT / "metrics/comparisons.json").read_text(encoding="utf-8"))
    pairs = {(p["first"], p["second"]): p for p in data["pairs"]}
    for pair in recorded["pairs"]:
        if {pair["first"], pair["second"]} <= set(recorded["p_best"]):
            shown = pairs.pop((pair["first"], pair["second"]))
            assert shown["difference"] == -pair["difference"]
            assert (shown["lo"], shown["hi"]) == (-pair["hi"], -pair["lo"])
            assert shown["significant"] == (pair["p_adjusted"] <= 0.05)
            lo, hi = 100 * shown["lo"], 100 * shown["hi"]
            p = "&lt; 0.001" if pair["p_adjusted"] < 0.001 else f"{pair['p_adjusted']:.3f}"
            row = (f"{pair['second']} less {pair['first']}", f"{100 * shown['difference']:+.3f}")
            row = (*row, f"{lo:+.3f} to {hi:+.3f}", p)
            found = re.search(rf"<td>{row[0]}</td>\n(.*?)</tr>", page, re.DOTALL)[1]
            assert tuple(re.findall(r">(.*?)</td>", found))[:3] == row[1:]
    assert not pairs
    with (ROOT / "plots/diagnostics/confusion.csv").open(encoding="utf-8") as file:
        expected = {
            (row["model"], int(row["label"]), str(predicted)): float(row[str(predicted)])
            for row in csv.DictReader(file)
            for predicted in range(10)
        }
    shown = {(r["model"], r["label"], r["predicted"]): r["images"] for r in data["confusion"]}
    assert shown == expected
    sampled = json.loads((ROOT / "metrics/sampled.json").read_text(encoding="utf-8"))
    assert {r["run"]: r["test_loss"] for r in data["sampled"]} == {
        name: m["test_loss"] for name, m in sampled.items()
    }
    cells = []  # of the tables of epochs
    for name in ("curves", "instance"):
        paths = sorted((ROOT / "plots/curves").glob("*.csv"))
        paths = paths if name == "curves" else [ROOT / "plots/instance.csv"]
        rows = [
            r for p in paths for r in csv.DictReader(p.read_text(encoding="utf-8").splitlines())
        ]
        key = "validation_accuracy" if name == "curves" else "accuracy"
        assert sorted(r[key] for r in data[name]) == sorted(float(r[key]) for r in rows)
        for r in rows:
            if name == "instance":
                cells.append(f"{100 * float(r[key]):.1f} %")
            else:
                error, lo, hi = (100 * (1 - float(r[f"{key}{end}"])) for end in ("", "_hi", "_lo"))
                cells.append(f"{error:.2f} % ({lo:.2f} to {hi:.2f})")
                cells += [f"{float(r[loss]):.4f}" for loss in ("validation_loss", "train_loss")]
    assert Counter(cells) <= Counter(re.findall("<td>(.*?)</td>", page))


def test_the_hard_digits_are_shown(page):
    with (ROOT / "plots/diagnostics/hard_digits.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    images = References(page).images
    assert len(images) == len(rows) > 0
    for image, row in zip(images, rows, strict=True):
        assert row["index"] in image["alt"]
        Path("hard.png").write_bytes(b64decode(image["src"].partition("base64,")[2]))
        pixels = np.array(list(bytes.fromhex(row["pixels"])))
        assert (np.asarray(Image.open("hard.png")).flatten() == 255 * pixels // pixels.max()).all()


def test_charts_are_drawn_without_a_word_on_the_console(browser):
    browser.open(Path("report/index.html"), until=CHARTS)
    page = browser.run("return document.documentElement.outerHTML")
    assert not browser.console
    laws = Counter(row["images"] for row in data_of(page)["instance"])
    for name, kind, count in [
        ("depth", "point", 8),
        ("pairs", "rect mark", 28),
        ("curves", "point", 9 * 15),
        ("confusion", "rect mark", 100),
        ("loss", "point", 8),
        ("instance", "point", laws["uniform"]),
        ("zipf", "point", laws["zipf"]),
    ]:
        chart = page[page.index(f'id="{name}"') :].partition("</svg>")[0]
        assert chart.count(f'aria-roledescription="{kind}"') == count, name
        assert "NaN" not in chart, name


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["wide", "phone"])
def test_the_page_can_be_read_and_used_by_all(browser, width, dark):
    browser.open(Path("report/index.html"), width, dark=dark, until=CHARTS)
    found = browser.run(SENSES)
    assert not browser.console
    assert (found["width"], found["dark"]) == (width, dark)
    # Of WCAG, level AA: 4.5 for text, 3 for what else is to be seen.
    least = {"letters": (4.5, 1000), "cells": (4.5, 128), "lines": (3, 100)}
    for name, (ratio, count) in least.items():
        assert len(found[name]) >= count
        assert [each for each in found[name] if each[1] < ratio] == [], name
    assert len(found["focus"]) > 30
    assert [each for each in found["focus"] if each[1] < 2 or each[2] < 3] == []
    assert found["scrolled"] <= width
    assert found["outside"] == []
    assert found["squares"] == pytest.approx([1] * len(found["squares"]), abs=0.02)
    # One line of each chart stands out when it is chosen in the list.
    for opacities in found["chosen"]:
        assert sorted(opacities)[-2:] == [0.08, 1]


@pytest.mark.parametrize("width", [1280, 390])
def test_60_depths_stand_in_order_and_no_label_covers_another(browser, page, tmp_path, width):
    data = data_of(page)
    depth, pair = data["depth"][2], data["pairs"][0]
    data["depth"] = [depth | {"model": f"L{n}", "depth": n} for n in range(1, 61)]
    two = combinations([row["model"] for row in data["depth"]], 2)
    data["pairs"] = [pair | {"first": one, "second": other} for one, other in two]
    curve = [row for row in data["curves"] if row["depth"] == 2]
    data["curves"] = [row | {"depth": n} for n in range(1, 61) for row in curve]
    (tmp_path / "index.html").write_text(
        page.replace(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1], json.dumps(data)),
        encoding="utf-8",
    )
    browser.open(tmp_path / "index.html", width, until=CHARTS)
    found = browser.run("""
      const labels = (of) => [...document.querySelectorAll(`${of} text`)]
        .filter((e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
        .map((e) => [e.textContent, e.getBoundingClientRect()])
        .map(([text, box]) => [text, box.left, box.right, box.top, box.bottom]);
      const axes = ["depth", "pairs"].map((id) => labels(`#${id} .role-axis-label`));
      return [...axes, labels("#pairs .mark-text.role-mark"), labels("#curves .role-legend-label")];
    """)
    depths, pairs, numbers, legend = found
    for one, other in chain(*(combinations(boxes, 2) for boxes in (depths, pairs, legend))):
        beside = one[2] <= other[1] or other[2] <= one[1]
        assert beside or one[4] <= other[3] or other[4] <= one[3], (one, other)
    lowest = max(top for *_, top, _ in pairs)
    columns = sorted((left, int(text[1:])) for text, left, _, top, _ in pairs if top == lowest)
    rows = sorted((top, int(text[1:])) for text, _, _, top, _ in pairs if top < lowest)
    for named in (columns, rows):
        assert len(named) >= 5
        assert sorted(depth for _, depth in named) == [depth for _, depth in named]
    assert numbers == []
    assert [text for text, *_ in legend] == [str(n) for n in range(1, 61)]


def test_a_finger_sees_what_a_mouse_sees(browser, page):
    browser.open(Path("report/index.html"), 390, until=CHARTS)
    # In the middle of a tile, and beside a point.
    for chart, mark, beside in [("pairs", ".mark-rect path", 0), ("depth", MEAN, 15)]:
        place = browser.run(f"""
          const mark = document.querySelectorAll("#{chart} {mark}")[1];
          mark.scrollIntoView({{ block: "center" }});
          await new Promise(requestAnimationFrame);
          const {{ left, top, width, height }} = mark.getBoundingClientRect();
          return [left + width / 2 + {beside}, top + height / 2];
        """)
        browser.tap(*place)
        answer = f"document.querySelector('#{chart} + output').textContent"
        browser.run(f"while (!{answer}) await new Promise(requestAnimationFrame)")
        shown = dict(row.split(": ") for row in browser.run(f"return {answer}").split("; "))
        row = data_of(page)[chart][1 if chart == "pairs" else 2]
        if chart == "pairs":
            assert shown["difference"] == f"{row['second']} less {row['first']}" == "L3 less L1"
            ends = f"{100 * row['lo']:+.3f} to {100 * row['hi']:+.3f}"
            assert shown["95 % interval"] == ends.replace("-", "−")  # noqa: RUF001
            assert float(shown["p, Tukey's test"]) == pytest.approx(row["p_adjusted"], rel=0.1)
        else:
            assert shown["hidden layers"] == str(row["depth"]) == "2"
            ends = f"{row['accuracy_lo']:.2%} to {row['accuracy_hi']:.2%}"
            assert shown["95 % interval"] == ends


def test_lines_are_told_apart_without_colour_and_verdicts_have_the_words_of_the_tables(browser):
    browser.open(Path("report/index.html"), until=CHARTS)
    looks = browser.run("""
      const { color, dash, shape, place } = lines("depth", [...Array(40).keys()], "", 1);
      const dashed = dash.strokeDash.scale.range, index = (i) => i % dashed.length;
      return color.scale.range.map((c, i) => [dashed[index(i)] + shape.shape.scale.range[i], c]);
    """)
    assert len(set(map(tuple, looks))) == 40
    assert len({look for look, _ in looks[:20]}) == 20
    legend = browser.run("""
      const texts = document.querySelectorAll("#depth .role-legend-label text");
      return [...texts].map((text) => text.textContent);
    """)
    assert legend == [findings.BEST, findings.BELOW]


def test_a_hard_digit_is_shown_large_where_nothing_can_be_drawn(browser, tmp_path):
    (tmp_path / "index.html").write_text(report.render(draws=False), encoding="utf-8")
    browser.open(tmp_path / "index.html", 390, until=CHARTS)
    assert (
        browser.run("""
      document.querySelector(".digits button").click();
      return document.querySelector(".digits :popover-open img").clientWidth;
    """)
        >= 300
    )


def test_the_browser_sees_in_digits_what_python_sees(browser, page):
    generator_ = np.random.default_rng(3)
    images = generator_.integers(0, 256, (4, 784))
    hard = bytes.fromhex(re.search(r'data-pixels="(\w+)"', page)[1])
    ink = np.zeros((280, 280), np.uint8)
    ink[40:60, 90:190] = 255
    ink[60:230, 150:175] = 180
    script = SCRIPT.replace("INK", json.dumps(ink.tolist())).replace(
        "IMAGES", json.dumps(images.tolist())
    )
    browser.open(Path("report/index.html"), until="true")
    found = browser.run(script)
    assert not browser.console

    # The same arithmetic on the same rounded weights, then the network as it was trained.
    text = Path("report/networks.js").read_text(encoding="utf-8")
    networks = json.loads(text.removeprefix("const networks = ").removesuffix(";\n"))
    assert [network["name"] for network in networks] == list(DRAWN)
    for network, shares in zip(networks, found["shares"], strict=True):
        assert shares == pytest.approx(rounded(network, images), abs=1e-9)
        assert shares == pytest.approx(exact(network["name"], images), abs=0.02)

    expected = pictures.centred(ink / 255, 28).flatten()
    assert np.abs(np.array(found["prepared"]) - expected).max() <= 1

    for rows, pixels in [(found["chosen"], hard), (found["drawn"], found["seen"])]:
        for row, network in zip(rows, networks, strict=True):
            shares = rounded(network, np.array([list(pixels)]))[0]
            second, first = shares.argsort()[-2:]
            depth = str(network["depth"])
            assert row == [depth, str(first), f"{100 * shares[first]:.1f} %", str(second)]
    seen = np.array(found["seen"]).reshape(28, 28)  # a stroke from top to bottom
    rows, columns = (seen > 127).nonzero()
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 2)

    # A chosen digit fills the field.
    large = np.array(found["large"]).reshape(28, 10, 28, 10)
    assert (large[:, 4, :, 4].flatten() == list(hard)).all()
    # The lines of a small drawing are no thicker than those of a large one.
    first, *others = np.array(found["sevens"]).astype(int)
    assert (first > 127).sum() < 100
    for other in others:
        assert np.abs(first - other).mean() < 3
    area, seen = found["tap"]
    assert area == pytest.approx(np.pi * 6**2, rel=0.1)
    assert seen
    assert found["others"] == 0


def rounded(network, images):
    """Probabilities (N, C) of a network of the page, in double precision."""
    x = (images - network["mean"]) / network["deviation"]
    for index, layer in enumerate(network["layers"]):
        weights = np.frombuffer(b64decode(layer["weights"]), np.int8)
        weights = weights.reshape(len(layer["bias"]), -1).astype(float)
        x = x @ weights.T * layer["scale"] + layer["bias"]
        x = x if index == len(network["layers"]) - 1 else x.clip(min=0)
    powers = np.exp(x - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def exact(name, images):
    """Probabilities (N, C) by the library."""
    layers, m = load_perceptron(Path(f"models/depths/{name}/seed-0.safetensors"), sizes_of(name))
    x = normalise(torch.from_numpy(images.astype(np.uint8)), m["mean"], m["deviation"])
    return logits(layers, x)[0].double().softmax(-1).numpy()


def test_without_models_nothing_can_be_drawn(tmp_path, page, capsys):
    for path in Path().iterdir():
        if path.name not in ("models", "report"):
            (tmp_path / path.name).symlink_to(path.resolve())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        report.main()
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]
    assert "\nTo draw digits on it, train the networks with `dvc repro`" in capsys.readouterr().out
    plain = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert 'id="pad"' in page
    assert 'id="pad"' not in plain
    assert data_of(plain) == data_of(page)


def test_what_is_missing_is_reported(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tools", "report"],
        env={"PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.match(r"error: .*plots/depth_accuracy\.csv is missing: run `dvc repro`", line)
    assert not Path("report").exists()


def call(*command: str) -> None:
    names = {"dvc": [sys.executable, "-m", "dvc"]}
    done = subprocess.run(
        [*names.get(command[0], command[:1]), *command[1:]],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def page_of_dvc(tmp_path_factory):
    """A page of `dvc plots diff` of two commits, with the project's charts of two tables."""
    folder = tmp_path_factory.mktemp("plots")
    document = YAML(typ="safe").load(ROOT / "dvc.yaml")
    (of_curves,) = document["stages"]["evaluate"]["do"]["plots"][0].values()
    del of_curves["cache"]
    plots = [*document["plots"], {CURVE: of_curves}, *({name: {}} for name in PICTURES)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call("git", "init", "--quiet")
        call("dvc", "init", "--quiet")
        shutil.copytree(ROOT / ".dvc/plots", ".dvc/plots")
        content = json.dumps({"plots": plots}).replace("${key}", "L3")
        Path("dvc.yaml").write_text(content, encoding="utf-8")
        for name in (TABLE, CURVE, *PICTURES):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, name)
        call("git", "add", "--all")
        identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        call("git", *identity, "commit", "--quiet", "--message", "start")
        rows = list(csv.DictReader(Path(TABLE).read_text(encoding="utf-8").splitlines()))
        for row in rows:
            row["accuracy_hi"] = 1.004 if row["model"] == "L3" else row["accuracy_hi"]
            if row["model"] == "L1":  # as of one seed
                row["accuracy_lo"] = row["accuracy_hi"] = ""
        with Path(TABLE).open("w", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        Path(CURVE).write_text(
            Path(CURVE).read_text(encoding="utf-8").replace("\n1,", "\n1.5,"), encoding="utf-8"
        )
        for name in PICTURES:
            Image.open(name).rotate(180).save(name)
        plots_page.main()
        call("dvc", "plots", "diff", "HEAD")
    return folder / "dvc_plots/index.html"


def test_pages_of_dvc_load_nothing(page_of_dvc):
    text = page_of_dvc.read_text(encoding="utf-8")
    assert "1.004" in text
    assert all(re.match("static/", target) for target in References(text).targets)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["wide", "phone"])
def test_pages_of_dvc_are_drawn(browser, page_of_dvc, width, dark):
    browser.open(page_of_dvc, width, dark=dark, until=DVC_CHARTS)
    # The library warns of what DVC's specifications are, and draws them.
    assert [line for line in browser.console if "Vega-Lite v5" not in line] == []
    found = browser.run(DVC_PAGE)
    depth, curve = found["charts"]
    assert depth["titles"] == ["hidden layers", "test accuracy"]
    assert curve["titles"] == ["epoch", "validation accuracy"]
    for chart in (depth, curve):
        assert chart["legend"] == [1, 1]
        levels = [float(label[:-1]) for label in chart["labels"] if label.endswith("%")]
        assert 90 < min(levels) < max(levels) <= 100
        assert chart["clipped"] == 0
    # Both revisions are seen, also where they coincide.
    assert len(set(depth["points"])) == len(depth["points"]) == 16
    assert curve["lines"] == ["5", "1.5"]
    assert found["scrolled"] <= width
    pictures = found["pictures"]
    assert all(right <= width for _, _, right in pictures)
    for first, second in zip(pictures[::2], pictures[1::2], strict=True):
        assert (first[0] == second[0]) == (width > 600)  # side by side, or one above the other


def test_another_study_has_a_page(digits):
    """Of images that nobody draws: scikit-learn's digits have a making of their own."""
    project = digits
    assert "To draw" not in project.run("python", "-m", "tools", "report")
    text = (project.folder / "report/index.html").read_text(encoding="utf-8")
    for row in data_of(text)["depth"]:
        path = project.folder / f"metrics/depths/{row['model']}.json"
        m = json.loads(path.read_text(encoding="utf-8"))
        assert (row["accuracy"], row["seeds"]) == (m["test_accuracy"], 3)
    assert 'id="pad"' not in text
    assert not (project.folder / "report/networks.js").exists()


def test_the_page_of_another_study_is_drawn(browser, digits):
    project = digits
    project.run("python", "-m", "tools", "report")
    browser.open(project.folder / "report/index.html", until=CHARTS)
    assert browser.console == []
