"""`fedtrain logs NAME`: what the pods of a round, or the processes of a run, wrote."""

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedoperator.cli import options as common
from fedoperator.cli import source
from fedoperator.cli.source import InFolder, OnCluster
from fedoperator.local import visible
from fedoperator.local.folder import Folder, Refused, opened
from fedoperator.rounds import observed
from fedtrain.contract import Role

if TYPE_CHECKING:
    from fedoperator.cli.server import Server

DESCRIPTION = """\
What the scripts and the aggregator wrote, in the newest round of which there is anything unless you
name one. Pods that stay (pods: Resident) write all of theirs in the round that started them.
Kubernetes keeps the pods of the last two rounds; a run keeps all it wrote in DIR/logs."""
_GLANCE = 0.2


def add(commands: common.Commands) -> None:
    logs = common.command(
        commands, "logs", help="show what the pods of a round wrote", description=DESCRIPTION
    )
    common.named(logs)
    common.cluster(logs)
    logs.add_argument("--round", type=_number, metavar="N", help="the newest if left out")
    logs.add_argument("--participant", metavar="NAME", help="all of them if left out")
    logs.add_argument("--role", choices=[str(role) for role in Role], help="all if left out")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as they write")
    logs.add_argument("--tail", type=_number, metavar="N", help="only the last lines of each")
    logs.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    found = source.of(
        options.name, options.namespace, kubeconfig=options.kubeconfig, context=options.context
    )
    training = found.training()
    if options.participant is not None and training.spec.site(options.participant) is None:
        names = ", ".join(site.name for site in training.spec.sites[:10])
        raise Refused(f"--participant: {options.participant} is none of {training.name}'s: {names}")
    wanted = Wanted(options.round, options.participant, options.role)
    if isinstance(found, InFolder):
        return _of_folder(found.folder, training.name, wanted, options)
    assert isinstance(found, OnCluster)
    return _of_cluster(found, wanted, options)


@dataclass(frozen=True, slots=True)
class Wanted:
    """None: any."""

    round: int | None
    participant: str | None
    role: str | None

    def takes(self, role: str, participant: str) -> bool:
        return (self.role in (None, role)) and (self.participant in (None, participant))


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A log: where it is (a path, or a pod's name), and whose."""

    place: str
    role: str
    round: int
    participant: str
    attempt: int

    @property
    def label(self) -> str:
        return " ".join(filter(None, [self.role, self.participant]))


def chosen(found: list[Written], wanted: Wanted) -> list[Written]:
    """Those that are wanted, of one round, the older attempts first. Raises Refused."""
    fitting = [one for one in found if wanted.takes(one.role, one.participant)]
    numbers = {one.round for one in fitting}
    number = max(numbers, default=0) if wanted.round is None else wanted.round
    if number not in numbers:
        there = ", ".join(str(n) for n in sorted(numbers)[-10:]) or "none"
        who = " ".join(filter(None, [wanted.role, wanted.participant]))
        of = f" of {who}" if who else ""
        raise Refused(f"there are no logs{of} of round {number}; there are logs of rounds: {there}")
    ours = [one for one in fitting if one.round == number]
    return sorted(ours, key=lambda one: (one.attempt, one.role, one.participant, one.place))


def _of_folder(folder: Folder, training: str, wanted: Wanted, options: argparse.Namespace) -> int:
    files = chosen(list(_files(folder, training)), wanted)
    places = {one.place: 0 for one in files}
    labels = {one.place: one.label for one in files}
    first = True
    while True:
        for place in places:
            path = folder.logs / place
            try:
                with opened(path) as file:
                    file.seek(places[place])
                    text = file.read()
            except OSError as error:
                raise Refused(f"{path} cannot be read: {error.strerror}") from error
            # Of one that is still written, whole lines only.
            cut = len(text) if not options.follow else text.rfind(b"\n") + 1
            places[place] += cut
            lines = text[:cut].decode(errors="replace").splitlines()
            if first and options.tail is not None:
                lines = lines[max(0, len(lines) - options.tail) :]
            _print(labels[place] if len(places) > 1 else "", lines)
        first = False
        status = folder.read()
        if not options.follow or (status is not None and status.status.terminal):
            if not any(places.values()):
                print(f"nothing is written in round {files[0].round}", file=sys.stderr)
            return 0
        time.sleep(_GLANCE)


def _files(folder: Folder, training: str) -> Iterator[Written]:
    """What a name of a log says: `digits-train-3-north-1.log`, with `-<node>` where there are
    several."""
    known = folder.read()
    names = [] if known is None else [site.name for site in known.spec.sites]
    for path in sorted(folder.logs.glob("*.log")):
        found = parsed(path.name, training, names)
        if found is not None:
            yield found


def parsed(file: str, training: str, names: list[str]) -> Written | None:
    """None for a name that was cut because it was too long, and for another's file."""
    rest = Path(file).stem.removeprefix(f"{training}-")
    role, _, rest = rest.partition("-")
    number, _, rest = rest.partition("-")
    who = max((n for n in names if rest.startswith(f"{n}-")), key=len, default="")
    attempt = rest.removeprefix(who).lstrip("-").partition("-")[0]
    if role not in {str(r) for r in Role} or not number.isdigit() or not attempt.isdigit():
        return None
    return Written(place=file, role=role, round=int(number), participant=who, attempt=int(attempt))


def _of_cluster(found: OnCluster, wanted: Wanted, options: argparse.Namespace) -> int:
    server = found.server
    selector = f"{observed.TRAINING_LABEL}={found.name},{observed.ROLE_LABEL}"
    pods = server.list(server.core("pods"), labelSelector=selector)
    if not pods:
        raise Refused(f"{found.name} has no pods now; they are kept for two rounds")
    logs = chosen([one for one in map(of_pod, pods) if one is not None], wanted)
    query = {"timestamps": "false"}
    if options.tail is not None:
        query["tailLines"] = str(options.tail)
    started = {p["metadata"]["name"] for p in pods if _has_started(p)}
    if not options.follow:
        for one in logs:
            label = one.label if len(logs) > 1 else ""
            if one.place in started:
                for line in _lines(server, one.place, query):
                    _print(label, [line])
            else:
                print(f"{one.place} has not started; fedtrain describe says why", file=sys.stderr)
        return 0
    return _followed(server, logs, query)


def _followed(server: "Server", logs: list[Written], query: dict[str, str]) -> int:
    """All at the same time, until the last one ends."""
    said = threading.Lock()
    failures: list[Refused] = []

    def follow(one: Written) -> None:
        try:
            for line in _lines(server, one.place, query | {"follow": "true"}):
                with said:
                    _print(one.label if len(logs) > 1 else "", [line])
        except Refused as refused:
            failures.append(refused)

    threads = [threading.Thread(target=follow, args=(one,), daemon=True) for one in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_GLANCE)
    if failures:
        raise failures[0]
    return 0


def _lines(server: "Server", pod: str, query: dict[str, str]) -> Iterator[str]:
    import urllib3.exceptions

    from fedoperator.cli.server import refused

    answer = server.stream(f"{server.core('pods', pod)}/log", **query)
    try:
        rest = b""
        for piece in answer.stream(65536):
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)
        if rest:
            yield rest.decode(errors="replace")
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise refused(error) from error
    finally:
        answer.close()


def of_pod(pod: dict[str, Any]) -> Written | None:
    """None for labels that somebody wrote by hand."""
    labels = pod["metadata"]["labels"]
    try:
        return Written(
            place=pod["metadata"]["name"],
            role=labels[observed.ROLE_LABEL],
            round=int(labels.get(observed.ROUND_LABEL, 0)),
            participant=labels.get(observed.PARTICIPANT_LABEL, ""),
            attempt=int(labels.get(observed.ATTEMPT_LABEL, 1)),
        )
    except ValueError:
        return None


def _has_started(pod: dict[str, Any]) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return any("waiting" not in status.get("state", {}) for status in statuses)


def _print(label: str, lines: list[str]) -> None:
    for line in lines:
        shown = visible.coloured(line) if sys.stdout.isatty() else line
        print(f"{label}: {shown}" if label else shown, flush=True)


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number")
    return int(text)
