"""`fedtrain`: one command for those who train, here or on a cluster."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

PLUGIN = "kubectl-fedtrain"
"""The name under which kubectl runs us, as `kubectl fedtrain`."""

PROLOGUE = """\
Train one model over data that never leaves its owners.

  fedtrain validate federation.yaml           what is wrong with it, in sentences
  fedtrain plan federation.yaml               what it will need: pods, accelerators, bytes, space
  fedtrain run federation.yaml --out out      the whole federation on this machine
  fedtrain apply federation.yaml              the same file on a cluster
  fedtrain watch digits                       how it goes there
  fedtrain describe digits                    how it stands, and what to do about it
  fedtrain report digits                      how it went, as one page for a browser"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; mistakes of users are sentences, never stack traces.

    What is ours is imported in here, which takes a second: Ctrl-C may come in it as well.
    """
    try:
        return _done(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        return 130


def _done(given: list[str]) -> int:
    from fedoperator.cli import validate
    from fedoperator.local import visible
    from fedoperator.local.folder import Refused

    options = parser(plugin=Path(sys.argv[0]).name == PLUGIN).parse_args(given)
    try:
        code: int = options.act(options)
        sys.stdout.flush()
    except (Refused, validate.Unreadable) as refused:
        print(visible.lines(str(refused)), file=sys.stderr)
        return 1
    except RecursionError:
        print("something in it is nested too deep to be read", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `fedtrain ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def parser(*, plugin: bool = False) -> argparse.ArgumentParser:
    """plugin: as kubectl's, which is called otherwise and is the same."""
    from fedoperator.cli import (
        apply,
        completion,
        describe,
        diff,
        export,
        logs,
        models,
        plan,
        report,
        run,
        suspend,
        track,
        validate,
        watch,
    )

    verbs = [validate, plan, run, apply, watch, describe, logs]
    verbs += [report, models, track, export, suspend, diff]
    result = argparse.ArgumentParser(
        prog="kubectl fedtrain" if plugin else "fedtrain",
        description=PROLOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--version", action="version", version=_version())
    commands = result.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in verbs:
        verb.add(commands)
    completion.add(commands, parser)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(act=_print_version)
    return result


def _version() -> str:
    from fedtrain import contract

    return f"fedtrain {contract.VERSION}"


def _print_version(_: argparse.Namespace) -> int:
    print(_version())
    return 0


if __name__ == "__main__":
    sys.exit(main())
