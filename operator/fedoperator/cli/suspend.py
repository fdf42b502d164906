"""`fedtrain suspend NAME` and `fedtrain resume NAME`."""

import argparse

from fedoperator.cli import options as common
from fedoperator.cli import source
from fedoperator.local.folder import Refused

SUSPEND = """\
Stop at once what trains, and keep everything: models, updates, and what was reported in this round.
An aggregation under way finishes first."""
RESUME = "Go on with the round that was suspended; what was stopped starts as its next attempt."


def add(commands: common.Commands) -> None:
    for name, told, help in (
        ("suspend", SUSPEND, "stop a training on a cluster, and keep everything"),
        ("resume", RESUME, "go on with a suspended training"),
    ):
        parser = common.command(
            commands, name, help=help, description=told, exits={0: "it is asked for, or was so"}
        )
        parser.add_argument("name", metavar="NAME", help="of the FederatedTraining")
        common.cluster(parser)
        parser.set_defaults(act=act, suspend=name == "suspend")


def act(options: argparse.Namespace) -> int:
    found = source.of(
        options.name, options.namespace, kubeconfig=options.kubeconfig, context=options.context
    )
    if not isinstance(found, source.OnCluster):
        how = "stop it by Ctrl-C, and run the same command again to go on"
        raise Refused(f"{options.name} is a run on this machine; {how}")
    training = found.training()
    status = training.status
    if status.terminal:
        raise Refused(f"{found.name} has {status.phase.lower()} already, and never starts again")
    if training.spec.suspend == options.suspend:
        print(f"{found.name} is {'suspended' if options.suspend else 'not suspended'} already")
        return 0
    found.server.patch(found.name, {"spec": {"suspend": options.suspend}})
    counts = status.participants
    if options.suspend:
        rest = f"{counts.running} of its pod sets are stopped, " if counts.running else ""
        kept = f"{counts.reported} reported updates are kept"
        print(f"{found.name} will rest in round {status.round}: {rest}{kept}")
    else:
        print(f"{found.name} goes on with round {status.round} of {training.spec.rounds}")
    return 0
