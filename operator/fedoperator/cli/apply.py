"""`fedtrain apply FILE`: onto the cluster, checked first, and told what it changes."""

import argparse
from typing import Any

from fedoperator.api import admission
from fedoperator.api import training as training_api
from fedoperator.api.training import TrainingSpec
from fedoperator.cli import changes, validate
from fedoperator.cli import options as common
from fedoperator.local.folder import Refused

DESCRIPTION = """\
Create the training in FILE on a cluster, or change the one that has its name there. It is checked
first, as `fedtrain validate` does; what would change is said, a line for each field, and so is what
may not be changed any more."""


def add(commands: common.Commands) -> None:
    apply = common.command(
        commands,
        "apply",
        help="create a training on a cluster, or change it",
        description=DESCRIPTION,
        exits={0: "the cluster has it as the file says"},
    )
    apply.add_argument("file", metavar="FILE", help="YAML of one FederatedTraining, or -")
    apply.add_argument("--dry-run", action="store_true", help="only say what would change")
    common.cluster(apply)
    apply.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    from fedoperator.cli.server import Server

    document = validate.checked(options.file)
    metadata = document["metadata"]
    if "name" not in metadata:
        raise Refused(f"{options.file}: metadata.name is missing; apply finds a training by it")
    given = metadata.get("namespace")
    if options.namespace and given and options.namespace != given:
        where = f"{options.file}: metadata.namespace is {given}, and -n {options.namespace}"
        raise Refused(f"{where}; leave one of them out")
    server = Server(options.namespace or given, options.kubeconfig, options.context)
    wanted = {**document, "metadata": {**metadata, "namespace": server.namespace}}
    who = f"{metadata['name']} in namespace {server.namespace}"
    found = server.get(training_api.PLURAL, metadata["name"])
    would = "would be " if options.dry_run else ""
    if found is None:
        if not options.dry_run:
            server.create(wanted)
        print(f"{who} {would}created")
        return 0
    lines = _changed(found, wanted)
    if not lines:
        print(f"{who} is as the file says already")
        return 0
    problems = admission.problems(found, wanted)
    if problems:
        raise Refused("\n".join(f"{options.file}: {problem}" for problem in problems))
    if not options.dry_run:
        # With the version that was read: who has changed it meanwhile is not undone unseen.
        server.replace({**found, "spec": document["spec"], "metadata": _merged(found, metadata)})
    print(f"{who} {would}changed:")
    for line in lines:
        print(f"  {line}")
    return 0


def _changed(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What the file changes; defaults that it leaves out are no change."""
    old, new = (TrainingSpec.model_validate(d["spec"]).to_dict() for d in (found, wanted))
    told = [changes.line(*change) for change in changes.between(old, new)]
    for part in ("labels", "annotations"):
        before = found["metadata"].get(part) or {}
        after = {**before, **(wanted["metadata"].get(part) or {})}
        told += [changes.line(*c) for c in changes.between(before, after, f"metadata.{part}")]
    return told


def _merged(found: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Labels and annotations of the file beside those of others."""
    merged = dict(found["metadata"])
    for part in ("labels", "annotations"):
        if given.get(part):
            merged[part] = {**(merged.get(part) or {}), **given[part]}
    return merged
