"""What the SDK says in the log of the script that it is part of."""

import sys


def say(line: str) -> None:
    """A word of ours, on standard error."""
    print(f"fedtrain: {line}", file=sys.stderr, flush=True)
