"""Three depths on real MNIST for one seed and one epoch, where its files are at hand."""

import json

import numpy as np
from PIL import Image

from isoparam.images.files import load_images

DIGITS, SHEET = 200, (400, 500)


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
    photographs = sorted((mnist.parent / "photos").glob("?.jpg"))
    read = answers(project, photographs)
    right = sum(answer == path.stem for answer, path in zip(read, photographs, strict=True))
    assert right >= len(photographs) - 3
    # The test images as if on paper are read as well as they are.
    test = load_images(project.folder / "data/split/test.safetensors", 784, 10)
    labels = test.labels[:DIGITS].tolist()
    found = [
        answers(project, write(project.folder / name, test.images[:DIGITS], paper=paper))
        for name, paper in (("made", False), ("paper", True))
    ]
    made, paper = (
        sum(int(answer) == label for answer, label in zip(each, labels, strict=True))
        for each in found
    )
    assert paper >= made - DIGITS // 50


def write(folder, images, *, paper):
    """Each image as a file: as MNIST made it, or enlarged, dark on light and off the middle."""
    folder.mkdir()
    generator, paths = np.random.default_rng(0), []
    for number, pixels in enumerate(images.numpy()):
        picture = Image.fromarray(pixels.reshape(28, 28))
        if paper:
            digit = Image.fromarray(255 - np.asarray(picture)).resize((224, 224))
            picture = Image.new("L", SHEET, 255)
            corner = generator.integers(0, np.array(SHEET) - 224)
            picture.paste(digit, tuple(corner.tolist()))
        paths.append(folder / f"{number:03}.png")
        picture.save(paths[-1])
    return paths


def answers(project, paths):
    """What L1 says of pictures."""
    if not paths:
        return []
    command = "python", "-m", "tools", "predict", "--model", "L1", "--json", *map(str, paths)
    return [json.loads(line)["class"] for line in project.run(*command).splitlines()]
