"""Three depths on real MNIST for one seed and one epoch, where its files are at hand."""

import json


def test_one_epoch_gives_sane_accuracies(mnist, new_study):
    depths = 0, 1, 4
    changes = {
        ("data", "mirrors"): [],
        ("seeds",): [0],
        ("train", "epochs"): 1,
        ("models",): {f"L{n}": {"depth": n} | ({"width": 1} if n else {}) for n in depths},
        ("sampled", "epochs"): 1,
        ("sampled", "runs"): {
            "full": {"weighting": "full", "learning_rate": 0.3},
            "importance_5": {"weighting": "importance", "samples": 5, "learning_rate": 0.3},
        },
        ("instance", "runs"): {
            "importance_64": {
                "weighting": "importance",
                "samples": 64,
                "learning_rate": 0.1,
                "epochs": 1,
            },
        },
    }
    project = new_study(changes, rate=0.05)
    project.run("dvc", "repro", ISOPARAM_DATA=str(mnist))
    for depth in depths:
        metrics = json.loads((project.folder / f"metrics/depths/L{depth}.json").read_text())
        # One epoch of a linear classifier gives about 0.91, of the others 0.95 to 0.97.
        lowest, highest = (0.93, 0.99) if depth else (0.88, 0.94)
        assert lowest < metrics["test_accuracy"] < highest, depth
        assert metrics["test_sd"] is None
    sampled = json.loads((project.folder / "metrics/sampled.json").read_text())
    assert all(0.88 < run["test_accuracy"] < 0.94 for run in sampled.values())
    # Instances among 50,000: chance is 0.00002.
    instance = json.loads((project.folder / "metrics/instance.json").read_text())
    assert instance["importance_64"]["test_accuracy"] > 0.001
