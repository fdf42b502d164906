"""`fedtrain report NAME|DIR`: a training and its rounds as one page of HTML."""

import argparse
import sys
from pathlib import Path

from fedoperator.cli import source
from fedoperator.local.folder import Refused
from fedoperator.report import page


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    try:
        found = source.of(options.name, options.namespace)
        training = found.training()
        text = page.html(training, found.records())
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    if options.out == "-":
        sys.stdout.write(text)
        return 0
    path = Path(options.out or Path(f"{training.name}.html").name)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        remedy = "name a file that can be written with -o, or - for standard output"
        print(f"{path}: {error.strerror}; {remedy}", file=sys.stderr)
        return 1
    print(path)
    return 0
