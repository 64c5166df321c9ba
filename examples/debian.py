"""What the examples learn from: the packages of Debian, as apt lists them.

`apt-get update -o Acquire::Languages=en` brings the lists, descriptions included. Where there are
none, which is reported, data of like statistics are generated: words and packages by Zipf's law.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch

from isoparam.sampled_softmax import LogUniformSampler

LISTS = Path("/var/lib/apt/lists")
# It reads the lists however apt compresses them.
HELPER = "/usr/lib/apt/apt-helper"


def descriptions(lists: Path) -> list[list[str]]:
    """The words of each description, lower-case, digits and other signs as words of their own."""
    texts = {
        fields["Description-md5"]: fields["Description-en"]  # of several packages, once
        for fields in paragraphs(lists, "*_Translation-en*")
        if "Description-en" in fields
    }
    if texts:
        return [re.findall(r"[a-z]+|\d|[^\sa-z\d]", text.lower()) for text in texts.values()]
    report_generated(lists, "descriptions")
    return generated_sentences()


def dependencies(lists: Path) -> dict[str, list[str]]:
    """The packages that each package needs or recommends, the first of alternatives."""
    found = {}
    for fields in paragraphs(lists, "*_Packages*"):
        needed = ", ".join(fields.get(name, "") for name in ("Depends", "Recommends"))
        names = (re.match(r"[a-z\d][a-z\d+.-]+", each.strip()) for each in needed.split(","))
        found[fields["Package"]] = sorted({name[0] for name in names if name})
    if not found:
        report_generated(lists, "packages")
    return found or generated_dependencies()


def report_generated(lists: Path, what: str) -> None:
    """Say that the data are not Debian's."""
    command = "apt-get update -o Acquire::Languages=en"
    print(f"{lists} has no {what}, so they are generated: try `{command}`", file=sys.stderr)


def paragraphs(lists: Path, pattern: str) -> Iterator[dict[str, str]]:
    """The fields of each paragraph of apt's lists."""
    for path in sorted(lists.glob(pattern)):
        done = subprocess.run([HELPER, "cat-file", path], capture_output=True, check=True)
        for paragraph in done.stdout.decode().split("\n\n"):
            if paragraph.strip():
                yield dict(re.findall(r"^(\S+):\s*((?:.*)(?:\n .*)*)", paragraph, re.MULTILINE))


def generated_sentences(
    sentences: int = 2000, length: int = 30, words: int = 2000
) -> list[list[str]]:
    """Words by Zipf's law, each second one among a few that often follow the word before."""
    generator = torch.Generator().manual_seed(0)
    nothing = torch.zeros(0, dtype=torch.int64)
    ids = LogUniformSampler(words).sample(sentences * length, nothing, generator=generator).ids
    follow = torch.randint(words, (words, 4), generator=generator)
    text = ids.view(sentences, length)
    choice = torch.randint(4, text.shape, generator=generator)
    for position in range(1, length, 2):
        text[:, position] = follow[text[:, position - 1], choice[:, position]]
    return [[f"word{j}" for j in row] for row in text.tolist()]


def generated_dependencies(packages: int = 1500, items: int = 600) -> dict[str, list[str]]:
    """Packages of some topics, each needing others of its topic, and what nearly all need."""
    generator = torch.Generator().manual_seed(0)
    nothing = torch.zeros(0, dtype=torch.int64)
    bounds = torch.arange(0, items + 1, items // 12).tolist()
    topics = list(pairwise(bounds))
    found = {}
    for number in range(packages):
        first, last = topics[number % len(topics)]
        own = LogUniformSampler(last - first).sample(6, nothing, generator=generator).ids + first
        common = LogUniformSampler(items).sample(2, nothing, generator=generator).ids
        names = {f"lib{item}" for item in torch.cat([own, common]).tolist()}
        found[f"package{number}"] = sorted(names)
    return found
