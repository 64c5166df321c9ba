"""Stage check: is params.yaml what the study understands? It runs at each change of the file."""

from stages import support


def main() -> None:
    """Check params.yaml as a whole; say what is wrong, if anything is."""
    support.read_params()


if __name__ == "__main__":
    support.run(main)
