"""Stage check: are the parameters what the study understands? It runs at each change of them."""

from stages import support


def main() -> None:
    """Check params.yaml and learning_rates.yaml as a whole; say what is wrong, if anything is."""
    params = support.read_params()
    for name in params.models:
        support.learning_rate_of(name)


if __name__ == "__main__":
    support.run(main)
