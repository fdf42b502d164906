"""`fedtrain run FILE --out DIR`."""

import argparse
import contextlib
import io
import sys
from pathlib import Path
from typing import Any

from fedoperator.api.training import KIND
from fedoperator.cli import validate
from fedoperator.local import shell
from fedoperator.local.folder import Refused


def run(options: argparse.Namespace) -> int:
    """The exit code; what is wrong with the file is said as `fedtrain validate` says it."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        invalid = validate.run(str(options.file))
    if invalid:
        print(said.getvalue(), end="", file=sys.stderr)
        return 1
    try:
        return shell.run(
            shell.Options(
                document=_only(options.file),
                scripts=options.file.resolve().parent,
                out=options.out,
                jobs=options.jobs,
                quiet=options.quiet,
                claims=dict(options.claim),
                give_up_after=options.give_up_after,
            )
        )
    except Refused as refused:
        for line in str(refused).splitlines():
            print(f"{options.file}: {line}", file=sys.stderr)
        return 1


def _only(file: Path) -> dict[str, Any]:
    """The one training of a valid file. Raises Refused if there are more."""
    documents = validate.documents(file.read_text("utf-8"))
    found = [d for d in documents if isinstance(d, dict) and d.get("kind") == KIND]
    if len(found) != 1:
        raise Refused(f"{len(found)} trainings are in it; a run takes one, so split the file")
    only: dict[str, Any] = found[0]
    return only
