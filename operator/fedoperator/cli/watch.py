"""`fedtrain watch NAME`."""

import argparse
import time

from fedoperator.api.round import Record
from fedoperator.cli import options as common
from fedoperator.cli import source
from fedoperator.local.folder import Refused

_GLANCE = 0.5
DESCRIPTION = """\
Follow a training until it is over: a line for each round, for each change of phase and for what
blocks it; on a terminal a bar and a table of the round's participants below them."""


def add(commands: common.Commands) -> None:
    watch = common.command(
        commands,
        "watch",
        help="follow a training until it is over",
        description=DESCRIPTION,
        exits={0: "succeeded", 1: "failed, or not there"},
    )
    common.named(watch)
    common.cluster(watch)
    watch.add_argument(
        "--until-done",
        action="store_true",
        help="wait for a training that does not exist yet, too",
    )
    watch.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    if source.is_folder(options.name):
        return _folder(options.name)
    from fedoperator.cli import watching

    return watching.run(options)


def _folder(name: str) -> int:
    """Follow a run on this machine, of whichever process; the exit code."""
    from fedoperator.cli.follow import Follower
    from fedoperator.local import report

    found = source.of(name)
    assert isinstance(found, source.InFolder)
    folder, telling = found.folder, report.make(quiet=False, clock=True)

    def record_of(name: str) -> Record | None:
        return folder.read_record(name)

    follower = Follower(telling, record_of)
    try:
        while True:
            code = follower.look(found.training())
            if code is not None:
                return code
            time.sleep(_GLANCE)
    except OSError as error:
        raise Refused(f"{name}: {error.strerror}; the folder was removed") from error
    finally:
        telling.close()
