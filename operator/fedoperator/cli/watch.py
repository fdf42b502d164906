"""`fedtrain watch NAME`."""

import argparse

from fedoperator.cli import options as common

DESCRIPTION = """\
Follow a training until it is over: a line for each round, for each change of phase and for what
blocks it; on a terminal a bar and a table of the round's participants below them."""


def add(commands: common.Commands) -> None:
    watch = common.command(
        commands,
        "watch",
        help="follow a training on a cluster",
        description=DESCRIPTION,
        exits={0: "succeeded", 1: "failed, or not there"},
    )
    watch.add_argument("name", metavar="NAME", help="of the FederatedTraining")
    common.cluster(watch)
    watch.add_argument(
        "--until-done",
        action="store_true",
        help="wait for a training that does not exist yet, too",
    )
    watch.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    from fedoperator.cli import watching

    return watching.run(options)
