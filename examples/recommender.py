"""A two-tower recommender: what else a package of Debian needs, of 12,000 that others need.

One tower turns the packages that are known into features, the other each candidate's name. The
candidates' table is computed, so the sampled softmax is composed of its transforms: the draw, the
logarithms of its weights, the mask of all that the package needs anyway, the loss. The negatives
are the batch's own targets, corrected by how frequent they are or not, and uniform ones beside
them. The corrected loss written by hand, the full softmax and `nn.AdaptiveLogSoftmaxWithLoss` get
as much processor time.

    apt-get update -o Acquire::Languages=en
    python -m examples.recommender --seconds 60 180
"""

import argparse
import collections
import math
import re
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples import debian
from isoparam.sampled_softmax import (
    InBatchSampler,
    MixedSampler,
    UniformSampler,
    UnigramSampler,
    log_weights,
    mask_accidental_hits,
    sampled_cross_entropy,
)

MOST = 30  # needed packages that are looked at
LOSSES = ("in-batch", "by hand", "uncorrected", "mixed", "adaptive", "full")


class Data(NamedTuple):
    """Packages and what they need, items sorted from frequent to rare; -1 fills up.

    Attributes:
        needs: (packages, MOST) items that a package needs.
        names: (items, parts) parts of an item's name.
        train: (pairs, 2) of a package and the place of an item that it needs.
        validation: the same of other packages, one each.
    """

    needs: Tensor
    names: Tensor
    train: Tensor
    validation: Tensor


def read(lists: Path, least: int = 4) -> Data:
    """Build the data, of the packages that need three others and more."""
    found = debian.dependencies(lists)
    frequency = collections.Counter(item for items in found.values() for item in items)
    items = [item for item, count in frequency.most_common() if count >= least]
    ids = {item: j for j, item in enumerate(items)}
    rows = [[ids[item] for item in needed if item in ids][:MOST] for needed in found.values()]
    parts = [re.findall(r"[a-z]+|\d+", item) for item in items]
    vocabulary = {part: j for j, part in enumerate(sorted({p for name in parts for p in name}))}
    needs = padded([torch.tensor(row) for row in rows if len(row) >= 3])
    pairs = (needs >= 0).nonzero()
    held_out = pairs[:, 0] % 10 == 0
    generator = torch.Generator().manual_seed(0)
    shuffled = pairs[held_out][torch.randperm(int(held_out.sum()), generator=generator)]
    one_each = {int(package): pair for package, pair in zip(shuffled[:, 0], shuffled, strict=True)}
    names = padded([torch.tensor([vocabulary[part] for part in name]) for name in parts])
    return Data(needs, names, pairs[~held_out], torch.stack(list(one_each.values())))


def padded(rows: list[Tensor]) -> Tensor:
    """Rows of several lengths as a matrix."""
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


class Bag(nn.Module):
    """The mean of the embeddings of ids, and a layer on it."""

    def __init__(self, ids: int, features: int) -> None:
        """Make the table with a row more for what fills up."""
        super().__init__()
        self.bag = nn.EmbeddingBag(ids + 1, features, padding_idx=ids, sparse=True)
        self.layer = nn.Sequential(nn.GELU(), nn.Linear(features, features))

    def forward(self, ids: Tensor) -> Tensor:  # noqa: D102
        mean = self.bag(torch.where(ids < 0, self.bag.padding_idx, ids))
        return mean + self.layer(mean)


class Model(nn.Module):
    """Both towers and a loss."""

    def __init__(self, data: Data, kind: str, features: int = 64, samples: int = 1024) -> None:
        """Make the towers; the adaptive softmax has a table of its own instead of the second."""
        super().__init__()
        items = len(data.names)
        self.kind, self.samples, self.data = kind, samples, data
        self.known = Bag(items, features)
        self.name = Bag(int(data.names.max()) + 1, features)
        self.own = nn.Embedding(items, features, sparse=True)
        nn.init.zeros_(self.own.weight)
        package, place = data.train.T
        counts = data.needs[package, place].bincount(minlength=items)
        # A batch is drawn from the pairs, so an item is a target as often as it is needed.
        law = UnigramSampler(counts, power=1.0, smoothing=0.1)
        self.in_batch = InBatchSampler(law, merge_repeats=True)
        self.mixed = MixedSampler(InBatchSampler(law), UniformSampler(items), merge_repeats=True)
        if kind == "adaptive":
            self.adaptive = nn.AdaptiveLogSoftmaxWithLoss(
                features, items, [items // 16, items // 4], div_value=2
            )

    def candidates(self, ids: Tensor) -> Tensor:
        """The second tower, (K,) to (K, d)."""
        return self.name(self.data.names[ids]) + self.own(ids)

    def forward(self, pairs: Tensor) -> Tensor:
        """The mean loss of pairs (B, 2)."""
        x, target, needs = self.known_features(pairs)
        if self.kind == "adaptive":
            return self.adaptive(x, target).loss
        if self.kind == "full":
            return F.cross_entropy(self.logits(x, target, needs), target)
        if self.kind == "by hand":
            logits = x @ self.candidates(target).T  # (B, B)
            counts = self.in_batch.log_probs(target) + math.log(len(target) - 1)
            sampled = (logits - counts.float()).masked_fill(
                self.marked(needs)[:, target], -torch.inf
            )
            both = torch.cat([logits.diagonal()[:, None], sampled], 1)
            return F.cross_entropy(both, torch.zeros_like(target))
        if self.kind == "mixed":
            draw = self.mixed.sample(self.samples, target)
        else:
            draw = self.in_batch.sample(None, target)
        sampled, own = log_weights(draw, "none" if self.kind == "uncorrected" else "importance")
        logits = x @ self.candidates(draw.ids).T + sampled.float()  # (B, K)
        logits = mask_accidental_hits(logits, draw.ids, needs)
        true = torch.linalg.vecdot(x, self.candidates(target)) + own.float()  # (B,)
        return sampled_cross_entropy(true, logits).mean()

    def known_features(self, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of what is known (B, d), the target (B,), and all that is needed (B, MOST)."""
        package, place = pairs.T
        needs = self.data.needs[package]
        known = needs.scatter(1, place[:, None], -1)
        return self.known(known), needs.gather(1, place[:, None])[:, 0], needs

    def logits(self, x: Tensor, target: Tensor, needs: Tensor) -> Tensor:
        """All items' logits (B, items), -inf for what is known."""
        if self.kind == "adaptive":
            logits = self.adaptive.log_prob(x)
        else:
            logits = x @ self.candidates(torch.arange(len(self.data.names))).T
        known = needs.masked_fill(needs == target[:, None], -1)
        return logits.masked_fill(self.marked(known), -torch.inf)

    def marked(self, ids: Tensor) -> Tensor:
        """Whether an item is among a row's ids, (B, MOST) to (B, items)."""
        mask = torch.zeros(len(ids), len(self.data.names) + 1, dtype=torch.bool)
        return mask.scatter(1, ids % mask.shape[1], value=True)[:, :-1]


def train(model: Model, seconds: float, batch: int, rate: float) -> int:
    """Train for so much processor time, the rate falling to 0; the number of steps."""
    tables = [model.known.bag.weight, model.name.bag.weight, model.own.weight]
    rest = [p for p in model.parameters() if not any(p is table for table in tables)]
    optimizers = [torch.optim.SparseAdam(tables, lr=rate), torch.optim.AdamW(rest, lr=rate)]
    generator = torch.Generator().manual_seed(1)
    start, steps = time.process_time(), 0
    while (spent := time.process_time() - start) < seconds:
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate * (1 - spent / seconds)
        pairs = model.data.train
        model(pairs[torch.randint(len(pairs), (batch,), generator=generator)]).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        steps += 1
    return steps


@torch.no_grad()
def evaluate(model: Model) -> tuple[float, float]:
    """Mean negative log-likelihood, and the share of targets among the ten likeliest."""
    losses, hits = [], []
    for pairs in model.data.validation.split(500):
        x, target, needs = model.known_features(pairs)
        logits = model.logits(x, target, needs)
        losses.append(F.cross_entropy(logits, target, reduction="none"))
        hits.append((logits.topk(10).indices == target[:, None]).any(1).double())
    return float(torch.cat(losses).mean()), float(torch.cat(hits).mean())


def main() -> None:
    """Print a row of CSV for each time and loss."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--lists", type=Path, default=debian.LISTS, help="folder of apt's lists")
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[60], help="of processor time, each loss"
    )
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--samples", type=int, default=1024, help="uniform items of `mixed`")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate, falling to 0")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = read(options.lists)
    print(f"# {len(data.train):,} pairs of a package and one of {len(data.names):,} that it needs")
    print("loss,processor_s,steps,ms_a_step,negative_log_likelihood,hit_at_10")
    for seconds, kind in product(options.seconds, options.losses):
        torch.manual_seed(0)
        model = Model(data, kind, samples=options.samples)
        steps = train(model, seconds, options.batch, options.rate)
        loss, hit = evaluate(model)
        ms = 1000 * seconds / steps
        print(f"{kind},{seconds:g},{steps},{ms:.1f},{loss:.2f},{hit:.3f}", flush=True)


if __name__ == "__main__":
    main()
