"""The page of all commands, from their own parser: `python -m fedoperator.cli.document [ROOT]`."""

import argparse
import os
import pathlib
import re
import sys
from collections.abc import Iterator

from fedoperator.cli import main

PATH = "docs/reference/cli.md"
HEAD = """\
# The command line

`fedtrain` and `kubectl fedtrain` are the same program. NAME is a training on the cluster that your
kubeconfig names, or the `--out` folder of a `fedtrain run`; `NAMESPACE/NAME` saves a `-n`. Output
is plain where it is piped. What is wrong is one sentence on standard error.

This page is made from the program's own help by `make manifests`.
"""


def page() -> str:
    """The whole page, the same on every terminal and for every user."""
    os.environ["COLUMNS"] = "84"  # as many as the site shows without scrolling
    parser = main.parser()
    parts = [HEAD]
    for name, one in _commands(parser):
        text = re.sub(r"\x1b\[[0-9;]*m", "", one.format_help()).rstrip()
        parts.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """(its words, its parser) of everything that can be run."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, one in action.choices.items():
                inner = list(_commands(one))
                yield from ([(f"{name} {n}", p) for n, p in inner] if inner else [(name, one)])


def write(arguments: list[str] | None = None) -> int:
    given = (sys.argv[1:] if arguments is None else arguments) or ["."]
    pathlib.Path(given[0], PATH).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(write())
