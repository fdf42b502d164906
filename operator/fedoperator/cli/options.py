"""What the subcommands' parsers have in common."""

import argparse
import json
import re
import textwrap
from typing import Any

Commands = Any
"""argparse's subparsers, which have no public type."""

EXITS = {
    0: "done",
    1: "refused, or wrong: one sentence on standard error says what",
    2: "not a command line",
    130: "after Ctrl-C",
    141: "nobody reads the output",
}
"""Of every command, unless it says more."""


class Filled(argparse.HelpFormatter):
    """Paragraphs are as wide as the terminal, at most 98; one with an indented line
    stands as it is written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            paragraph
            if re.search(r"^ ", paragraph, re.MULTILINE)
            else textwrap.fill(
                paragraph, min(width, 98), break_long_words=False, break_on_hyphens=False
            )
            for paragraph in text.split("\n\n")
        )


def command(
    commands: Commands,
    name: str,
    *,
    help: str,
    description: str,
    exits: dict[int, str] | None = None,
    epilog: str = "",
) -> argparse.ArgumentParser:
    """A subcommand whose help ends with its exit codes. exits: those that are its own."""
    meant = dict(sorted((EXITS | (exits or {})).items()))
    codes = "exit codes: " + "\n            ".join(f"{n} {what}" for n, what in meant.items())
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=f"{codes}\n\n{epilog}".rstrip(),
        formatter_class=Filled,
    )
    return made


def cluster(parser: argparse.ArgumentParser) -> None:
    """Which cluster, and where in it."""
    parser.add_argument("-n", "--namespace", help="that of the context if left out")
    parser.add_argument("--context", help="of the kubeconfig; the current one if left out")
    parser.add_argument("--kubeconfig", metavar="FILE", help="KUBECONFIG if left out")


def named(parser: argparse.ArgumentParser, name: str = "name", metavar: str = "NAME") -> None:
    """A training: see `fedoperator.cli.source`."""
    what = "of a training on the cluster, or the --out folder of a run"
    parser.add_argument(name, metavar=metavar, help=what)


def output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("json",), help="for programs to read")


def print_json(document: object) -> None:
    print(json.dumps(document, indent=2, default=str))
