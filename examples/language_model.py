"""A word-level language model on the descriptions of Debian's packages: the next of 32,000 words.

Input and output embedding are one table. The sampled softmax gives it a sparse gradient, so that
SparseAdam moves the rows that a step read, beside AdamW for the layers below. Its rivals get as
much processor time: the full softmax, `nn.AdaptiveLogSoftmaxWithLoss`, and the sampled softmax as
one writes it by hand, which gathers rows and lets autograd do the rest.

    apt-get update -o Acquire::Languages=en
    python -m examples.language_model --seconds 60 900
"""

import argparse
import collections
import math
import time
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples import debian
from isoparam.sampled_softmax import SampledLinearCrossEntropyLoss, UnigramSampler

CONTEXT = 8  # words from which the next one is predicted
LOSSES = ("sampled", "by hand", "adaptive", "full")


def read(lists: Path, least: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Train and validation examples, rows of context and next word, and each word's count."""
    texts = debian.descriptions(lists)
    frequency = collections.Counter(word for text in texts for word in text)
    words = [word for word, count in frequency.most_common() if count >= least]
    ids = {word: j for j, word in enumerate(words, start=2)}  # 0 begins a text, 1 is a rare word
    parts: list[list[Tensor]] = [[], []]
    for number, text in enumerate(texts):
        row = torch.tensor([0] * CONTEXT + [ids.get(word, 1) for word in text])
        parts[number % 20 == 0].append(row.unfold(0, CONTEXT + 1, 1))
    train, validation = map(torch.cat, parts)
    return train, validation, train[:, -1].bincount(minlength=len(words) + 2)


class Model(nn.Module):
    """Words (B, 8) to features (B, d), and the loss of the next word."""

    def __init__(self, counts: Tensor, kind: str, features: int = 128, samples: int = 1024) -> None:
        """Tie the output to the embedding; that of the adaptive softmax is its own."""
        super().__init__()
        words, d = len(counts), features
        self.kind, self.samples = kind, samples
        self.embedding = nn.Embedding(words, d, sparse=kind != "full")
        nn.init.normal_(self.embedding.weight, std=d**-0.5)
        self.below = nn.Sequential(
            *(nn.Flatten(), nn.Linear(CONTEXT * d, 2 * d), nn.GELU()),
            *(nn.Linear(2 * d, d), nn.LayerNorm(d)),
        )
        # Words are drawn by their frequency. Frequent ones come up often, so each once.
        self.sampler = UnigramSampler(counts, smoothing=1.0, merge_repeats=kind == "sampled")
        if kind == "adaptive":
            self.loss = nn.AdaptiveLogSoftmaxWithLoss(d, words, [words // 16, words // 4])
        else:
            self.loss = SampledLinearCrossEntropyLoss(
                d, words, num_samples=samples, sampler=self.sampler
            )
            self.loss.linear.weight = self.embedding.weight

    def forward(self, context: Tensor, target: Tensor) -> Tensor:
        """The mean loss: the estimate in training, the exact one in evaluation."""
        x = self.below(self.embedding(context))  # (B, d)
        if self.kind == "adaptive":
            return self.loss(x, target).loss
        if self.kind == "full":
            return F.cross_entropy(x @ self.embedding.weight.T, target)
        if self.kind == "by hand" and self.training:
            draw = self.sampler.sample(self.samples, target)
            rows = self.embedding(draw.ids)  # (K, d)
            sampled = x @ rows.T - draw.log_expected_counts.float()  # (B, K)
            sampled = sampled.masked_fill(draw.ids == target[:, None], -math.inf)
            true = (x * self.embedding(target)).sum(1, keepdim=True)  # (B, 1)
            return F.cross_entropy(torch.cat([true, sampled], 1), torch.zeros_like(target))
        return self.loss(x, target)

    def optimizers(self, rate: float) -> list[torch.optim.Optimizer]:
        """SparseAdam for the table where its gradient is sparse, AdamW for all else."""
        table = [self.embedding.weight]
        rest = [p for p in self.parameters() if p is not table[0]]
        adam = torch.optim.AdamW(rest, lr=rate, weight_decay=0.01)
        kind = torch.optim.Adam if self.kind == "full" else torch.optim.SparseAdam
        return [kind(table, lr=rate), adam]


def train(model: Model, data: Tensor, seconds: float, batch: int, rate: float) -> int:
    """Train for so much processor time, the rate falling to 0; the number of steps."""
    optimizers = model.optimizers(rate)
    generator = torch.Generator().manual_seed(1)
    start, steps = time.process_time(), 0
    while (spent := time.process_time() - start) < seconds:
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate * (1 - spent / seconds)
        rows = data[torch.randint(len(data), (batch,), generator=generator)]
        model(rows[:, :-1], rows[:, -1]).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        steps += 1
    return steps


@torch.no_grad()
def perplexity(model: Model, data: Tensor, most: int = 20_000) -> float:
    """The exponential of the mean negative log-likelihood over all words."""
    model.eval()
    rows = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(2))[:most]]
    losses = [model(part[:, :-1], part[:, -1]) * len(part) for part in rows.split(500)]
    model.train()
    return math.exp(float(sum(losses)) / len(rows))


def main() -> None:
    """Print a row of CSV for each time and loss."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--lists", type=Path, default=debian.LISTS, help="folder of apt's lists")
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[60], help="of processor time, each loss"
    )
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--samples", type=int, default=1024, help="sampled words K")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate, falling to 0")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, validation, counts = read(options.lists)
    print(f"# {len(data):,} words to learn from, {len(counts):,} different ones")
    print("loss,processor_s,steps,ms_a_step,perplexity")
    for seconds, kind in product(options.seconds, options.losses):
        torch.manual_seed(0)
        model = Model(counts, kind, samples=options.samples)
        steps = train(model, data, seconds, options.batch, options.rate)
        result = perplexity(model, validation)
        ms = 1000 * seconds / steps
        print(f"{kind},{seconds:g},{steps},{ms:.1f},{result:.1f}", flush=True)


if __name__ == "__main__":
    main()
