"""`fedtrain report NAME|DIR`: a training and its rounds as one page of HTML."""

import argparse
import sys
from pathlib import Path

from fedoperator.cli import options as common
from fedoperator.cli import source
from fedoperator.local.folder import Refused

DESCRIPTION = """\
Write a training and its rounds as one page for a browser: how good by round, where the time went,
who took part and who was dropped and why, the lineage. The file holds everything and asks nobody
for anything, so it can be sent; it names participants and what their scripts said."""


def add(commands: common.Commands) -> None:
    report = common.command(
        commands, "report", help="write a training as one page of HTML", description=DESCRIPTION
    )
    common.named(report)
    report.add_argument(
        "-o", "--out", metavar="FILE", help="NAME.html if left out; - is standard output"
    )
    common.cluster(report)
    report.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    from fedoperator.report import page

    found = source.of(
        options.name, options.namespace, kubeconfig=options.kubeconfig, context=options.context
    )
    training = found.training()
    # Half a surrogate pair, which JSON can name, has no bytes.
    text = page.html(training, found.records()).encode("utf-8", "replace")
    if options.out == "-":
        sys.stdout.buffer.write(text)
        return 0
    path = Path(options.out or Path(f"{training.name}.html").name)
    try:
        path.write_bytes(text)
    except OSError as error:
        remedy = "name a file that can be written with -o, or - for standard output"
        raise Refused(f"{path}: {error.strerror}; {remedy}") from error
    print(path)
    return 0
