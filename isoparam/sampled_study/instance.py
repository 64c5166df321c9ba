"""Instance discrimination: each training image is a class, and its input a shifted, noised view.

The output layer has as many classes as there are images, so what it costs to train is what a
sampled softmax saves.
"""

from collections.abc import Callable
from math import isfinite, nan
from typing import Any

import torch
from torch import Tensor, nn

from isoparam.network.products import product
from isoparam.network.randomness import Stream, stream_of
from isoparam.network.softmax import less_one_hot
from isoparam.network.training import DivergenceError, steps_of
from isoparam.sampled_softmax.draws import Sampler
from isoparam.sampled_softmax.loss import descend, sampled_linear_cross_entropy
from isoparam.sampled_softmax.samplers import LogUniformSampler, UniformSampler, UnigramSampler
from isoparam.sampled_study.linear import Evaluation, State, restore
from isoparam.sampled_study.recipes import InstanceRecipe, Law
from isoparam.sampled_study.views import Views


class _Product(torch.autograd.Function):
    """x W^T by the fastest product at hand, with its derived gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x[None], weight.T[None])[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x = product(grad[None], weight[None])[0] if ctx.needs_input_grad[0] else None
        return grad_x, product(grad.T[None], x[None])[0]


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = _Product.apply(input, self.weight)
        return result


def encoder(inputs: int, hidden: int, features: int, generator: torch.Generator) -> nn.Sequential:
    """A perceptron of one hidden layer, both of its layers normalised over the batch.

    Without gain and bias in the last normalisation each feature has mean 0 and variance 1.

    Args:
        inputs: pixels D of a view.
        hidden: units of the hidden layer.
        features: units of the output.
        generator: the source of the initial weights.

    Returns:
        The network, (B, D) to (B, features), its weights as `torch.nn.Linear` draws them.

    Example:
        >>> network = encoder(64, 32, 8, torch.Generator())
        >>> network(torch.randn(5, 64)).shape
        torch.Size([5, 8])
    """
    first, last = _Linear(inputs, hidden, bias=False), _Linear(hidden, features, bias=False)
    for layer in (first, last):
        bound = layer.in_features**-0.5
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    return nn.Sequential(
        first, nn.BatchNorm1d(hidden), nn.ReLU(), last, nn.BatchNorm1d(features, affine=False)
    )


class Probe:
    """Views to evaluate on, always the same for a seed and a stream.

    Args:
        views: where they come from.
        count: how many.
        law: how their images are drawn; without repetition if uniform.
        seed: of images, shifts and noise, in [0, 2^32).
        held_out: whether to take the views to choose learning rates by, others than those to
            report.
    """

    def __init__(self, views: Views, count: int, law: Law, *, seed: int, held_out: bool) -> None:
        """Draw the views."""
        generator = stream_of(seed, Stream.HELD_OUT_PROBE if held_out else Stream.PROBE)
        count = min(count, len(views))
        self.ids = _draw_images(len(views), law, generator)[:count]  # (M,)
        self.views = views(self.ids, generator)  # (M, D)

    def evaluate(self, network: nn.Module, weight: Tensor, epoch: int) -> Evaluation:
        """Negative log-likelihood and accuracy over all classes.

        Args:
            network: the encoder.
            weight: (C, features), a row for each image.
            epoch: what to call the result.

        Returns:
            The evaluation.
        """
        network.eval()
        losses, hits = [], []
        with torch.no_grad():
            # Blocks, since all logits at once are a gigabyte.
            for ids, views in zip(self.ids.split(250), self.views.split(250), strict=True):
                logits = product(network(views)[None], weight.T[None])[0]  # (250, C)
                top, best = logits.max(1)
                margin = top - logits.gather(1, ids[:, None])[:, 0]  # (250,)
                # The largest probability is 1 / sum_j e^{z_j - top}: with a softmax in place this
                # takes a quarter of the time of logsumexp.
                p = torch.softmax(logits, 1, out=logits)
                losses.append((margin - p.amax(1).log()).double())
                hits.append((best == ids).double())
        network.train()
        return Evaluation(epoch, torch.cat(losses).mean().item(), torch.cat(hits).mean().item())


def train_instances(
    views: Views,
    probe: Probe,
    recipe: InstanceRecipe,
    *,
    seed: int,
    on_epoch: Callable[[str], None] = lambda _: None,
    state: State | None = None,
    on_state: Callable[[State], None] = lambda _: None,
) -> list[Evaluation]:
    """Train encoder and classes to distinguish each image from all others.

    The encoder learns by stochastic gradient descent with momentum, the classes without: then a
    step touches the sampled rows only. Samples are shared by the batch, drawn with replacement,
    uniformly or, if images are drawn by Zipf's law, with q proportional to frequency^exponent.
    Initial weights, order and views depend on the seed alone, not on weighting and samples.

    Args:
        views: of C images.
        probe: what to evaluate on.
        recipe: with a batch of 2 to C views.
        seed: in [0, 2^32).
        on_epoch: called after each epoch with a text to show.
        state: what `on_state` got, to resume bit-identically; None to start.
        on_state: called after each epoch with all that the next epochs depend on; the tensors
            change with the next step.

    Returns:
        The evaluations.

    Raises:
        ValueError: if a batch is larger than the training set.
        DivergenceError: if the loss is not finite.
    """
    count = len(views)
    if recipe.batch_size > count:
        raise ValueError(
            f"instance.batch_size must be at most {count}, the number of images, "
            f"got {recipe.batch_size}"
        )
    order, weights, draws, noise = (
        stream_of(seed, stream)
        for stream in (Stream.ORDER, Stream.WEIGHTS, Stream.SAMPLES, Stream.VIEWS)
    )
    network = encoder(views.inputs, recipe.hidden, recipe.features, weights)
    classes = nn.Parameter(torch.zeros(count, recipe.features))
    if recipe.weighting == "full":
        # The layout in which the whole gradient comes; sampled rows are faster to read as rows.
        classes = nn.Parameter(torch.zeros(recipe.features, count).T)
    sampler = _sampler(count, recipe.images, recipe.exponent)
    velocities = [torch.zeros_like(parameter) for parameter in network.parameters()]
    evaluations = recipe.evaluations
    at = {-(-recipe.epochs * k // evaluations) for k in range(1, evaluations + 1)}
    generators = {"order": order, "draws": draws, "noise": noise}
    kept = {
        "classes": classes.detach(),  # (C, features)
        **network.state_dict(),
        **{f"velocity.{index}": velocity for index, velocity in enumerate(velocities)},
    }
    figures = torch.zeros(0, 2, dtype=torch.float64)  # (epochs so far, 2), NaN if not evaluated
    if state is not None:
        restore(state, kept, generators)
        figures = state["history"]
    for epoch in range(len(figures) + 1, recipe.epochs + 1):
        images = _draw_images(count, recipe.images, order)
        for target, rate in steps_of(recipe, images, epoch):  # (B,)
            x = network(views(target, noise))  # (B, features)
            class_rate = rate * recipe.class_rate
            if recipe.weighting == "full":
                x.backward(_full_step(x.detach(), classes.detach(), target, class_rate))
            else:
                sampled_linear_cross_entropy(
                    x,
                    classes,
                    target,
                    sampler.sample(recipe.samples or 0, target, generator=draws),
                    weighting=recipe.weighting,
                    validate=False,
                ).backward()
                descend(classes, class_rate)
            _descend(network, velocities, rate, recipe.momentum)
        text, found = "", Evaluation(epoch, nan, nan)
        if epoch in at:
            found = probe.evaluate(network, classes.detach(), epoch)
            if not isfinite(found.loss):
                raise DivergenceError(
                    f"the loss is not finite after epoch {epoch}: lower the learning rate, "
                    f"now {recipe.learning_rate}"
                )
            text = f"top-1 {100 * found.accuracy:.1f} %"
        figures = torch.cat([figures, torch.tensor([found[1:]], dtype=torch.float64)])
        on_epoch(text)
        states = {name: generator.get_state() for name, generator in generators.items()}
        on_state(kept | states | {"history": figures})
    return [Evaluation(n, *row) for n, row in enumerate(figures.tolist(), start=1) if n in at]


def _full_step(x: Tensor, weight: Tensor, target: Tensor, rate: float) -> Tensor:
    """One step of the classes under the full softmax; also the gradient of the mean loss, dl/dx.

    It works in place: with C = 50,000, memory traffic costs as much as the products.
    """
    logits = product(x[None], weight.T[None])[0]  # (B, C)
    delta = less_one_hot(torch.softmax(logits, 1, out=logits), target)
    gradient = product(delta[None], weight[None])[0] / len(x)  # (B, features)
    # Not as delta^T x: a left factor that is not contiguous would be copied first.
    weight.add_(product(x.T[None], delta[None])[0].T, alpha=-rate / len(x))
    return gradient


def _descend(network: nn.Module, velocities: list[Tensor], rate: float, momentum: float) -> None:
    """Step of gradient descent: v <- momentum v + g, w <- w - rate v.

    What torch.optim.SGD does, without the seconds that its first use takes in each process.
    """
    with torch.no_grad():
        for parameter, velocity in zip(network.parameters(), velocities, strict=True):
            if (gradient := parameter.grad) is not None:
                parameter.add_(velocity.mul_(momentum).add_(gradient), alpha=-rate)
                parameter.grad = None


def _sampler(count: int, law: Law, exponent: float) -> Sampler:
    if law == "uniform":
        return UniformSampler(count)
    frequencies = LogUniformSampler(count).log_probs(torch.arange(count)).exp()
    return UnigramSampler(frequencies, exponent)


def _draw_images(count: int, law: Law, generator: torch.Generator) -> Tensor:
    """The images of one epoch, (C,)."""
    if law == "uniform":
        return torch.randperm(count, generator=generator)
    nothing = torch.zeros(0, dtype=torch.int64)
    return LogUniformSampler(count).sample(count, nothing, generator=generator).ids
