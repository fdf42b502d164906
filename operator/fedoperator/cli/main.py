"""`fedtrain`: one command for those who train, here or on a cluster."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from fedoperator.api import base
from fedtrain import contract

VERSION = f"fedtrain {contract.VERSION}"

PROLOGUE = """\
Train one model over data that never leaves its owners.

  fedtrain validate federation.yaml           what is wrong with it, in sentences
  fedtrain run federation.yaml --out out      the whole federation on this machine
  kubectl apply -f federation.yaml            the same file on a cluster
  fedtrain watch digits                       how it goes there
  fedtrain report digits                      how it went, as one page for a browser"""

RUN = """\
Run a FederatedTraining on this machine: processes stand in for pods, folders for volumes; what
is decided is decided by the same code as on a cluster. Commands run in the folder of FILE.

Interrupted by Ctrl-C, or killed, the same command goes on where it was. In DIR:
status.yaml (globalModel.path is relative to DIR/exchange), rounds/ (a FederatedRound each),
logs/ (what the scripts printed), exchange/ (models and updates)."""

RUN_EXITS = """\
exit codes: 0 succeeded, 1 failed or refused, 3 suspended or blocked, 130 after Ctrl-C

images, resources, volumes and the like do nothing here; data claims are not mounted: scripts see
this machine's own files, so say where data is by args or env. An env variable that comes from a
Secret or ConfigMap is taken from your shell."""

EXPORT = """\
Write a global model into OUT: one safetensors file with the config and the tokenizer that travel
with it, or an adapter with its adapter_config.json, for from_pretrained(OUT)."""

REPORT = """\
Write a training and its rounds as one page for a browser: how good by round, where the time went,
who took part and who was dropped and why, the lineage. The file holds everything and asks nobody
for anything, so it can be sent; it names participants and what their scripts said."""

WATCH_EXITS = "exit codes: 0 succeeded, 1 failed or not there, 130 after Ctrl-C"

WATCH = """\
Follow a training on a cluster until it is over: a line for each round, for each change of phase
and for what blocks it. Uses the current context of your kubeconfig."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; mistakes of users are sentences, never stack traces."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.act(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `fedtrain ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    return code


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    result = argparse.ArgumentParser(prog="fedtrain", description=PROLOGUE, formatter_class=raw)
    commands = result.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="run a federation on this machine",
        description=RUN,
        epilog=RUN_EXITS,
        formatter_class=raw,
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
        type=_claim,
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
    run.set_defaults(act=_run)

    validate = commands.add_parser(
        "validate", help="say what is wrong with a file", description="One line per problem."
    )
    validate.add_argument("files", metavar="FILE", nargs="+", help="YAML, or - to read it here")
    validate.set_defaults(act=_validate)

    watch = commands.add_parser(
        "watch",
        help="follow a training on a cluster",
        description=WATCH,
        epilog=WATCH_EXITS,
        formatter_class=raw,
    )
    watch.add_argument("name", metavar="NAME", help="of the FederatedTraining")
    watch.add_argument("-n", "--namespace", help="that of the current context if left out")
    watch.add_argument(
        "--until-done",
        action="store_true",
        help="wait for a training that does not exist yet, too",
    )
    watch.set_defaults(act=_watch)

    export = commands.add_parser(
        "export",
        help="write a global model as Transformers and PEFT read it",
        description=EXPORT,
        formatter_class=raw,
    )
    export.add_argument("folder", metavar="DIR", type=Path, help="global/ROUND/N, or a run's DIR")
    export.add_argument("out", metavar="OUT", type=Path, help="made if need be")
    export.add_argument(
        "--dtype", choices=("fp32", "bf16"), default="fp32", help="of the tensors (%(default)s)"
    )
    export.set_defaults(act=_export)

    report = commands.add_parser(
        "report",
        help="write a training as one page of HTML",
        description=REPORT,
        formatter_class=raw,
    )
    report.add_argument(
        "name", metavar="NAME|DIR", help="of the FederatedTraining, or the --out of a fedtrain run"
    )
    report.add_argument("-n", "--namespace", help="that of the current context if left out")
    report.add_argument(
        "-o", dest="out", metavar="FILE", help="NAME.html if left out; - is standard output"
    )
    report.set_defaults(act=_report)

    result.add_argument("--version", action="version", version=VERSION)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(act=_version)
    return result


def _run(options: argparse.Namespace) -> int:
    from fedoperator.cli import run

    return run.run(options)


def _validate(options: argparse.Namespace) -> int:
    from fedoperator.cli import validate

    return max(validate.run(path) for path in options.files)


def _watch(options: argparse.Namespace) -> int:
    from fedoperator.cli import watch

    return watch.run(options.name, options.namespace, until_done=options.until_done)


def _export(options: argparse.Namespace) -> int:
    from fedoperator.cli import export

    return export.run(options)


def _report(options: argparse.Namespace) -> int:
    from fedoperator.cli import report

    return report.run(options)


def _version(_: argparse.Namespace) -> int:
    print(VERSION)
    return 0


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of ranks; use 1 or more")
    return int(text)


def _time(text: str) -> timedelta:
    if len(text) < 2 or not re.match(base.DURATION_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write it like 90s or 10m")
    return base.seconds(text)


def _claim(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not name or not separator or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER with a folder that exists")
    return name, Path(folder).resolve()


if __name__ == "__main__":
    sys.exit(main())
