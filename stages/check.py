"""Stage check: are the parameters what the study understands? It runs at each change of them."""

from pipeline import commands, parameters


def main() -> None:
    """Check params.yaml and learning_rates.yaml as a whole; say what is wrong, if anything is."""
    params = parameters.read_params()
    for name in params.models:
        parameters.learning_rate_of(name)


if __name__ == "__main__":
    commands.run(main)
