"""`fedtrain plan FILE`: what a training will need, before anything of it starts."""

import argparse
import dataclasses
import hashlib
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from fedoperator.api.training import Training, TrainingSpec
from fedoperator.cli import capacity, modelsize, validate
from fedoperator.cli import options as common
from fedoperator.cli import run as run_command
from fedoperator.cli.capacity import shown
from fedoperator.report import markup
from fedoperator.rounds import forecast
from fedoperator.rounds.forecast import Forecast
from fedtrain.contract import Role

DESCRIPTION = """\
Say what the training in FILE will need, before anything of it starts: pods, accelerators, bytes
moved in a round, space on the exchange, memory and time of the aggregator; with --cluster also what
the cluster cannot give. Pods and sizes are exact if nobody fails; an early stop makes it less."""

SHORT = 3


def add(commands: common.Commands) -> None:
    plan = common.command(
        commands,
        "plan",
        help="say what a training will need",
        description=DESCRIPTION,
        exits={0: "everything needed is there", SHORT: "something is not enough, or missing"},
    )
    plan.add_argument("file", metavar="FILE", help="YAML of one FederatedTraining, or -")
    plan.add_argument(
        "--parameters",
        metavar="N",
        type=modelsize.parameters,
        help="of the model (of the adapter, where that travels): 25000, 100M, 7B",
    )
    plan.add_argument(
        "--model",
        metavar="PATH",
        type=Path,
        help="a safetensors file, its index or folder, or the --out of an earlier run",
    )
    plan.add_argument(
        "--claim",
        metavar="NAME=FOLDER",
        type=run_command.claim,
        action="append",
        default=[],
        help="where the claim of spec.model is on this machine",
    )
    plan.add_argument("--cluster", action="store_true", help="look at the cluster, too")
    common.cluster(plan)
    common.output(plan)
    plan.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    document = validate.checked(options.file)
    spec = TrainingSpec.model_validate(document["spec"])
    name = document["metadata"].get("name") or "training"
    model = modelsize.of(spec, options.model, options.parameters, dict(options.claim))
    needs = forecast.forecast(spec, name, model)
    namespace = options.namespace or document["metadata"].get("namespace")
    training = Training(
        name=name, namespace=namespace or "default", uid="00000000", generation=1, spec=spec
    )
    missing = list(capacity.too_small(training, needs))
    remarks: list[str] = []
    if options.cluster or options.context or options.kubeconfig:
        from fedoperator.cli.server import Server

        seen = capacity.looked_at(Server(namespace, options.kubeconfig, options.context))
        missing += capacity.shortfalls(training, needs, seen)
        remarks += seen.remarks
    if options.output == "json":
        common.print_json({**_document(needs), "missing": missing, "remarks": remarks})
    else:
        print("\n".join([*lines(training, needs, hashing_rate()), *remarks]))
        for sentence in missing:
            print(f"missing     {sentence}")
    return SHORT if missing else 0


def lines(training: Training, needs: Forecast, rate: float) -> Iterator[str]:
    """The plan in words. rate: bytes a second that a core hashes."""
    spec = training.spec
    people = f"{len(spec.participants)} participant{'s' * (len(spec.participants) > 1)}"
    yield f"{training.name}: {spec.rounds} round{'s' * (spec.rounds > 1)}, {people}"
    about = "" if needs.exact else "about "
    yield f"pods        {about}{needs.total}: {_by_role(needs.pods)}"
    yield f"            at most {_by_role(needs.per_round)} in a round, {needs.at_most} at a time"
    yield f"held        {_resources(needs.held)} at a time"
    yield f"            {_resources(needs.per_round_resources)} asked for in a round"
    if spec.stop is not None:
        yield "            stop may end it earlier"
    yield from _bytes(training, needs, rate)


def _bytes(training: Training, needs: Forecast, rate: float) -> Iterator[str]:
    if needs.moved is None or needs.model_bytes is None or needs.update_bytes is None:
        yield f"bytes       unknown: {modelsize.UNKNOWN}"
        return
    assert needs.moved_in_all is not None
    assert needs.peak is not None
    assert needs.end is not None
    spec = training.spec
    codec = f" as {spec.compression.codec}" if spec.compression else ""
    model, update = markup.size(needs.model_bytes), markup.size(needs.update_bytes)
    yield f"model       {model} global, {update} an update{codec}"
    for what, moved in (("read", needs.moved.read), ("written", needs.moved.written)):
        parts = ", ".join(f"{role} {markup.size(n)}" for role, n in moved.items())
        first = "moved" if what == "read" else ""
        yield f"{first:<12}{what} in a round: {parts}"
    each, all_rounds = markup.size(needs.moved.total), markup.size(needs.moved_in_all)
    yield f"            {each} in a round, {all_rounds} in all"
    size = f" of exchange.size {spec.exchange.size}" if spec.exchange.size else ""
    peak, end = markup.size(needs.peak), markup.size(needs.end)
    yield f"exchange    at most {peak}{size}, {end} at the end"
    assert needs.memory is not None
    cores = aggregator_cores(spec)
    seconds = aggregation_bytes(needs) / rate / cores
    yield (
        f"aggregator  {markup.size(needs.memory)} of memory, {_in_words(seconds)} a round "
        f"(hashing {rate / 1e9:.1f} GB/s a core as here, {cores:g} core{'s' * (cores > 1)})"
    )


def _in_words(seconds: float) -> str:
    """`less than 0.1 s`, `about 4.2 s`, `about 5 min 10 s`."""
    if seconds < 0.1:
        return "less than 0.1 s"
    return f"about {markup.duration(seconds)}".replace("\N{NO-BREAK SPACE}", " ")


def aggregation_bytes(needs: Forecast) -> int:
    """What one aggregation hashes: all that it reads and writes."""
    assert needs.moved is not None
    return needs.moved.read[Role.AGGREGATE] + needs.moved.written[Role.AGGREGATE]


def aggregator_cores(spec: TrainingSpec) -> float:
    """Of all its pods: their limit of cpu, else one each."""
    given = spec.aggregation.resources
    limit = (given.limits or {}).get("cpu") if given else None
    each = float(forecast.quantity(limit)) if limit is not None else 1.0
    return max(each, 0.1) * spec.aggregation.shards


def hashing_rate() -> float:
    """Bytes a second of sha256 on one core here, measured in some hundredths of a second: what an
    aggregation takes longest for, where its files can be read faster."""
    block, started = bytes(16 * 2**20), time.perf_counter()
    hashlib.sha256(block).digest()
    return len(block) / (time.perf_counter() - started)


def _by_role(counts: Mapping[Role, int]) -> str:
    return ", ".join(f"{n} {role}" for role, n in counts.items())


def _resources(amounts: Mapping[str, Decimal]) -> str:
    return ", ".join(f"{name} {shown(name, n)}" for name, n in sorted(amounts.items())) or "nothing"


def _document(needs: Forecast) -> dict[str, Any]:
    """For programs: bytes, and resources as numbers."""
    fields = {f.name for f in dataclasses.fields(needs)} - {"largest", "moved"}
    told = {name: _plain(getattr(needs, name)) for name in sorted(fields)}
    moved = needs.moved
    told["moved"] = moved and {"read": _plain(moved.read), "written": _plain(moved.written)}
    return {"total": needs.total, **told}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return float(value) if isinstance(value, Decimal) else value
