"""`fedtrain run FILE --out DIR`."""

import argparse
import re
import sys
from datetime import timedelta
from pathlib import Path

from fedoperator.api import base
from fedoperator.cli import options as common
from fedoperator.cli import validate
from fedoperator.local.folder import Refused

DESCRIPTION = """\
Run a FederatedTraining on this machine: processes stand in for pods, folders for volumes; what
is decided is decided by the same code as on a cluster. Commands run in the folder of FILE.

Interrupted by Ctrl-C, or killed, the same command goes on where it was. In DIR:
status.yaml (globalModel.path is relative to DIR/exchange), rounds/ (a FederatedRound each),
logs/ (what the scripts printed), exchange/ (models and updates)."""

EPILOG = """\
images, resources, volumes and the like do nothing here; data claims are not mounted: scripts see
this machine's own files, so say where data is by args or env. An env variable that comes from a
Secret or ConfigMap is taken from your shell."""

EXITS = {0: "succeeded", 1: "failed or refused", 3: "suspended or blocked"}


def add(commands: common.Commands) -> None:
    run = common.command(
        commands,
        "run",
        help="run a federation on this machine",
        description=DESCRIPTION,
        exits=EXITS,
        epilog=EPILOG,
    )
    run.add_argument("file", metavar="FILE", type=Path, help="YAML of one FederatedTraining")
    run.add_argument("--out", metavar="DIR", type=Path, required=True, help="everything goes here")
    run.add_argument(
        "--jobs",
        metavar="N",
        type=_count,
        help="ranks that run at a time (as many as there are cores; one workload always runs)",
    )
    run.add_argument("--quiet", action="store_true", help="say only the result and what is wrong")
    run.add_argument(
        "--claim",
        metavar="NAME=FOLDER",
        type=claim,
        action="append",
        default=[],
        help="the folder that stands for a claim in spec.model or in participants[].base",
    )
    run.add_argument(
        "--give-up-after",
        metavar="TIME",
        type=_time,
        default="10m",
        help="leave a training that stays blocked (%(default)s)",
    )
    run.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """The exit code; what is wrong with the file is said as `fedtrain validate` says it."""
    from fedoperator.local import shell

    try:
        return shell.run(
            shell.Options(
                document=validate.only(str(options.file)),
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


def claim(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    try:
        there = Path(folder).is_dir()
    except (OSError, ValueError):  # no name that a folder could have
        there = False
    if not name or not separator or not there:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER with a folder that exists")
    return name, Path(folder).resolve()


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of ranks; use 1 or more")
    return int(text)


def _time(text: str) -> timedelta:
    if len(text) < 2 or not re.match(base.DURATION_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write it like 90s or 10m")
    return base.seconds(text)
