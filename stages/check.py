"""Stage check: validates the parameters. It runs after each change of them."""

from pipeline import commands, parameters


def main() -> None:
    """Check params.yaml and learning_rates.yaml, and report each error."""
    params = parameters.read_params()
    for name in params.models:
        parameters.learning_rate_of(name)


if __name__ == "__main__":
    commands.run(main)
