"""`captionq-worker`, also as `python -m worker`: says what to install where that is missing."""

import sys


def main() -> None:
    """Entry point: a base install has this command too, and none of what workers need."""
    try:
        from worker.cli import main as run
    except ModuleNotFoundError as exc:
        print(
            f"captionq-worker: {exc.name} is not installed: pip install 'captionq[worker]'",
            file=sys.stderr,
        )
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
