"""`fedtrain track NAME`."""

import argparse
from pathlib import Path

from fedoperator.cli import options as common
from fedoperator.local.folder import Refused

DESCRIPTION = """\
Send what the rounds of a training measured to MLflow or TensorBoard: a training is a run, a round a
step of it. What is there already is not sent again, so begin and end it when you like.

Without --mlflow and --tensorboard it is what spec.tracking says, with MLFLOW_TRACKING_URI. Where
spec.tracking is set, `fedtrain run` does this by itself, and so does a platform that has a tracker.
"""


def add(commands: common.Commands) -> None:
    track = common.command(
        commands,
        "track",
        help="send rounds to MLflow or TensorBoard",
        description=DESCRIPTION,
        exits={0: "everything is sent", 1: "not everything is sent"},
    )
    what = "of a training on the cluster, or the --out folder of a run"
    track.add_argument("name", metavar="NAME", nargs="?", help=what)
    common.cluster(track)
    track.add_argument("--mlflow", metavar="URI", help="address of an MLflow tracking server")
    track.add_argument("--experiment", metavar="E", help="of MLflow, whatever the training says")
    track.add_argument("--tensorboard", metavar="DIR", type=Path, help="what its --logdir is given")
    track.add_argument("--follow", action="store_true", help="until the training is over")
    track.add_argument(
        "--all",
        action="store_true",
        help="all trainings of the namespace that ask for it, for ever: what the chart installs",
    )
    track.add_argument(
        "-A", "--all-namespaces", action="store_true", help="with --all: of every namespace"
    )
    track.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    if (options.name is None) != options.all:
        raise Refused("name one training, or say --all")
    if options.all_namespaces and not options.all:
        raise Refused("--all-namespaces goes with --all")
    if options.experiment is not None and options.all:
        raise Refused("--experiment is of one training; those of --all say it in spec.tracking")
    if options.all:
        from fedoperator.cli import tracker

        return tracker.run(options)
    from fedoperator.cli import tracking

    return tracking.run(options)
