"""The verbs; README.md says more about each."""

import argparse
import os
import pathlib
import sys

from devcluster import binaries, cluster, images, network, recipes, report, settings


def main() -> int:
    """Run one verb; the exit code of the process."""
    options = _parser().parse_args()
    try:
        return _VERBS[options.verb](options)
    except report.DevclusterError as error:
        report.say(str(error))
        return 1
    except KeyboardInterrupt:
        report.say("interrupted; `up` goes on from here, `down` removes what there is")
        return 130


def _up(options: argparse.Namespace) -> int:
    cluster.up()
    return 0


def _down(options: argparse.Namespace) -> int:
    cluster.down()
    return 0


def _status(options: argparse.Namespace) -> int:
    lines = cluster.status()
    for name, state, _ in lines:
        print(f"{name:<24} {state}")
    return 0 if all(ready for _, _, ready in lines) else 1


def _kubeconfig(options: argparse.Namespace) -> int:
    path = cluster.kubeconfig()
    print(f"export KUBECONFIG={path}" if options.export else path)
    return 0


def _logs(options: argparse.Namespace) -> int:
    print(report.tail(cluster.log_of(options.component), options.lines))
    return 0


def _load(options: argparse.Namespace) -> int:
    for image in options.images:
        print(images.load(image), flush=True)
    return 0


def _build(options: argparse.Namespace) -> int:
    wanted = images.Build(
        tag=options.tag,
        context=options.context,
        file=options.file,
        target=options.target,
        arguments=tuple(options.build_arg),
    )
    images.build(wanted)
    return 0


def _exec(options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise report.DevclusterError("exec needs a command: exec -- ip route")
    words = [*network.entering(settings.settings().netns), *command]
    os.execvp(words[0], words)


def _binary(options: argparse.Namespace) -> int:
    print(binaries.built(options.name))
    return 0


_VERBS = {
    "up": _up,
    "down": _down,
    "status": _status,
    "kubeconfig": _kubeconfig,
    "logs": _logs,
    "load": _load,
    "build": _build,
    "exec": _exec,
    "binary": _binary,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m devcluster", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("up", help="make and start whatever is missing; quick when nothing is")
    verbs.add_parser("down", help="stop and remove everything but the caches")
    verbs.add_parser("status", help="a line a component; exit 1 unless all are ready")
    verb = verbs.add_parser("kubeconfig", help="print the path of the admin's kubeconfig")
    verb.add_argument("--export", action="store_true", help="as a line for eval")
    verb = verbs.add_parser("logs", help="print the end of a component's log")
    verb.add_argument("component")
    verb.add_argument("-n", "--lines", type=int, default=50)
    verb = verbs.add_parser("load", help="push images of buildah; print the names pods pull")
    verb.add_argument("images", nargs="+", metavar="IMAGE")
    verb = verbs.add_parser("build", help="build a Dockerfile, with the base image as BASE")
    verb.add_argument("-t", "--tag", required=True)
    verb.add_argument("-f", "--file", type=pathlib.Path)
    verb.add_argument("--target")
    verb.add_argument("--build-arg", action="append", default=[], metavar="K=V")
    verb.add_argument("context", type=pathlib.Path, metavar="CONTEXT")
    verb = verbs.add_parser("exec", help="run a command in the cluster's network namespace")
    verb.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD")
    verb = verbs.add_parser("binary", help="print the path of a program, building it if need be")
    verb.add_argument("name", choices=list(recipes.BINARIES))
    return parser


if __name__ == "__main__":
    sys.exit(main())
