"""Records what TensorFlow's sampled softmax computes, as an outside oracle for the tests.

python -m benchmarks.tensorflow_fixture
"""

import itertools
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

OUT = Path("tests/isoparam/sampled_softmax/fixtures/tensorflow_sampled_softmax.json")
B, C, d = 3, 6, 2
SAMPLERS = {
    "uniform": (tf.random.uniform_candidate_sampler, lambda _: np.full(C, 1 / C)),
    "log_uniform": (
        tf.random.log_uniform_candidate_sampler,
        lambda j: np.log((j + 2) / (j + 1)) / np.log(C + 1),
    ),
}


def numbers(values: np.ndarray) -> list:
    """Shortest decimals that read back as the same float32."""
    return np.vectorize(lambda v: float(str(np.float32(v))), otypes=[object])(values).tolist()


def expected_counts(weighting: str, q: np.ndarray, draw: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Counts for the targets and the samples under which TensorFlow computes a weighting."""
    ids, true_counts, sampled_counts = draw
    ones = np.ones(B)
    return {
        "tensorflow": (true_counts, sampled_counts),
        "importance": (ones, sampled_counts),
        "stated": (ones, len(ids) / q[ids]),
        "none": (ones, np.ones(len(ids))),
    }[weighting]


def outputs(problem: dict, ids: np.ndarray, counts: tuple, remove_hits: bool) -> dict:
    """Loss of each example and the gradients of their sum."""
    weight, bias, inputs = (
        tf.Variable(np.array(problem[k], np.float32)) for k in ("weight", "bias", "input")
    )
    with tf.GradientTape() as tape:
        loss = tf.nn.sampled_softmax_loss(
            weights=weight,
            biases=bias,
            labels=np.array(problem["target"], np.int64)[:, None],
            inputs=inputs,
            num_sampled=len(ids),
            num_classes=C,
            sampled_values=(
                ids,
                counts[0].astype(np.float32)[:, None],
                counts[1].astype(np.float32),
            ),
            remove_accidental_hits=remove_hits,
        )
        total = tf.reduce_sum(loss)
    gradients = tape.gradient(total, [inputs, weight, bias])
    names = ["loss", "grad_input", "grad_weight", "grad_bias"]
    tensors = [loss, *map(tf.convert_to_tensor, gradients)]
    return {name: numbers(tensor.numpy()) for name, tensor in zip(names, tensors, strict=True)}


def main() -> None:
    """Write the fixture."""
    rng = np.random.default_rng(0)
    problems = []
    draws = itertools.product(SAMPLERS, [(False, 2), (False, 9), (True, 2), (True, 5)])
    for sampler, (unique, K) in draws:
        draw_candidates, probabilities = SAMPLERS[sampler]
        target = rng.integers(C, size=B)
        draw = draw_candidates(target[:, None], 1, K, unique, C, seed=len(problems) + 1)
        ids, true_counts, sampled_counts = (np.array(v).reshape(-1) for v in draw)
        problem = {
            "sampler": sampler,
            "unique": unique,
            "input": numbers(rng.normal(size=(B, d)).round(2)),
            "weight": numbers(rng.normal(size=(C, d)).round(2)),
            "bias": numbers(rng.normal(size=C).round(2)),
            "target": target.tolist(),
            "ids": ids.tolist(),
            "true_counts": numbers(true_counts),
            "sampled_counts": numbers(sampled_counts),
            "cases": [],
        }
        q = probabilities(np.arange(C))
        weightings = ("tensorflow", "importance", "stated", "none")
        for weighting, remove_hits in itertools.product(weightings, (True, False)):
            counts = expected_counts(weighting, q, (ids, true_counts, sampled_counts))
            options = {"weighting": weighting, "mask_hits": remove_hits}
            problem["cases"].append(options | outputs(problem, ids, counts, remove_hits))
        problems.append(problem)
    content = {"tensorflow": tf.__version__, "problems": problems}
    text = json.dumps(content, separators=(",", ":")).replace('{"weighting', '\n{"weighting')
    OUT.write_text(text.replace('{"sampler', '\n{"sampler') + "\n")


if __name__ == "__main__":
    main()
