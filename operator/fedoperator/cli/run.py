"""`fedtrain run FILE --out DIR`."""

import argparse
import sys
from typing import Any

from fedoperator.cli import validate
from fedoperator.local import shell
from fedoperator.local.folder import Refused


def run(options: argparse.Namespace) -> int:
    """The exit code; what is wrong with the file is said as `fedtrain validate` says it."""
    try:
        return shell.run(
            shell.Options(
                document=_only(validate.trainings(str(options.file))),
                scripts=options.file.resolve().parent,
                out=options.out,
                jobs=options.jobs,
                quiet=options.quiet,
                claims=dict(options.claim),
                give_up_after=options.give_up_after,
            )
        )
    except (validate.Unreadable, Refused) as refused:
        for line in str(refused).splitlines():
            print(f"{options.file}: {line}", file=sys.stderr)
        return 1


def _only(trainings: list[dict[str, Any]]) -> dict[str, Any]:
    if len(trainings) != 1:
        raise Refused(f"{len(trainings)} trainings are in it; a run takes one, so split the file")
    return trainings[0]
