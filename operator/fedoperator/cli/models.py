"""`fedtrain models list | download | verify | push`: the global models of a training."""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedoperator.api.base import GlobalModel
from fedoperator.api.round import Record
from fedoperator.api.training import Training
from fedoperator.cli import export, source, table
from fedoperator.cli import options as common
from fedoperator.cli.source import InFolder, OnCluster, Source
from fedoperator.local import report
from fedoperator.local.folder import Refused

LIST = (
    "The global models of a training, by round, with their digests and what was measured of them."
)
DOWNLOAD = """\
Copy a global model with all that lies beside it into OUT, and verify its digest. From a cluster it
comes through a pod that mounts the exchange read-only and is deleted at the end: that takes the
right to create pods and to exec into them."""
VERIFY = """\
Read a global model again and compare its digest with its manifest's. WHAT is a downloaded folder, a
folder global/ROUND/N, or the --out folder of a run, of which it is the last model."""
PUSH = """\
Write a global model into OUT as Transformers and PEFT read it, config and tokenizer included, ready
for a model registry or from_pretrained(OUT)."""


def add(commands: common.Commands) -> None:
    models = commands.add_parser("models", help="list and fetch global models", description=LIST)
    verbs = models.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = common.command(verbs, "list", help="which there are", description=LIST)
    common.named(listing)
    common.cluster(listing)
    common.output(listing)
    listing.set_defaults(act=_list)
    download = common.command(verbs, "download", help="copy one here", description=DOWNLOAD)
    push = common.command(verbs, "push", help="write one for others to read", description=PUSH)
    for parser in (download, push):
        common.named(parser)
        parser.add_argument("out", metavar="OUT", type=Path, help="a folder that is not there yet")
        parser.add_argument("--round", type=_round, metavar="N", help="the last one if left out")
        parser.add_argument("--image", help="of the pod; the training's own if left out")
        common.cluster(parser)
    push.add_argument(
        "--dtype", choices=("fp32", "bf16"), default="fp32", help="of the tensors (%(default)s)"
    )
    download.set_defaults(act=_download)
    push.set_defaults(act=_push)
    verify = common.command(
        verbs,
        "verify",
        help="compare one with its digest",
        description=VERIFY,
        exits={0: "it is what was published", 1: "it is not"},
    )
    verify.add_argument("folder", metavar="WHAT", type=Path)
    verify.add_argument("--digest", help="what it must be; that of its manifest if left out")
    verify.set_defaults(act=_verify)


def _list(options: argparse.Namespace) -> int:
    found = _source(options)
    rows = list(listed(found.training(), found.records(), found))
    if options.output == "json":
        common.print_json(rows)
        return 0
    if not rows:
        raise Refused(f"{options.name} has no global model yet; wait for its first round")
    cells = [
        (
            row["round"],
            row["digest"],
            "  ".join(report.measured(row["metrics"])),
            "" if row["bytes"] is None else row["bytes"],
            row["kept"],
            row["path"],
        )
        for row in rows
    ]
    table.print_table(("round", "digest", "metrics", "bytes", "kept", "path"), cells)
    return 0


def listed(training: Training, records: list[Record], found: Source) -> Iterator[dict[str, Any]]:
    """Each model that a round has published. kept: whether its files are there; what is on a
    cluster's volume is what `keep` leaves there. bytes: None where nobody looked."""
    last = training.status.global_model
    best = {b.round for b in training.status.kept}
    for record in records:
        model = record.status.global_model
        if model is None:
            continue
        nbytes, kept = None, "yes"
        if isinstance(found, InFolder):
            folder = (found.folder.exchange / model.path).parent
            sizes = [p.stat().st_size for p in folder.glob("*") if p.is_file()]
            nbytes, kept = sum(sizes), "yes" if sizes else "no"
        elif last is not None and model.round <= last.round - training.spec.keep.last:
            kept = "best" if model.round in best else "no"
        yield {
            "round": model.round,
            "digest": model.digest,
            "metrics": dict(record.status.metrics),
            "bytes": nbytes,
            "kept": kept,
            "path": model.path,
        }


def _download(options: argparse.Namespace) -> int:
    return fetched(_source(options), options, options.out)


def _push(options: argparse.Namespace) -> int:
    found = _source(options)
    if isinstance(found, InFolder):
        folder = _in_folder(found, _model(found, options.round))
        return export.export(folder, options.out, options.dtype)
    with tempfile.TemporaryDirectory(prefix="fedtrain-") as place:
        folder = Path(place) / "model"
        code = fetched(found, options, folder)
        return code or export.export(folder, options.out, options.dtype)


def _verify(options: argparse.Namespace) -> int:
    folder = export.model_folder(options.folder)
    return verified(folder, options.digest)


def verified(folder: Path, digest: str | None) -> int:
    """The exit code of the SDK's program."""
    told = [] if digest is None else [f"--digest={digest}"]
    return export.sdk("fedtrain.verify", str(folder), *told)


def fetched(found: Source, options: argparse.Namespace, out: Path) -> int:
    """Copy the model into `out`, and verify it; the exit code."""
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise Refused(f"{out} is there already, and not empty; name another folder")
        model = _model(found, options.round)
        if isinstance(found, InFolder):
            shutil.copytree(_in_folder(found, model), out, dirs_exist_ok=True)
        else:
            assert isinstance(found, OnCluster)
            from fedoperator.cli import download

            download.download(found, model, out, options.image)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Refused(f"{out}: {why}; name another folder") from error
    return verified(out, model.digest)


def _model(found: Source, number: int | None) -> GlobalModel:
    """Of that round, or the last one. Raises Refused."""
    training = found.training()
    last = training.status.global_model
    if last is None:
        raise Refused(f"{training.name} has no global model yet; wait for its first round")
    if number is None or number == last.round:
        return last
    models = [r.status.global_model for r in found.records()]
    chosen = next((m for m in models if m is not None and m.round == number), None)
    if chosen is None:
        there = ", ".join(str(m.round) for m in models if m is not None) or "none"
        raise Refused(f"--round: {training.name} has no model of round {number}; it has {there}")
    return chosen


def _in_folder(found: InFolder, model: GlobalModel) -> Path:
    folder = (found.folder.exchange / model.path).parent
    if not folder.is_dir():
        raise Refused(
            f"the model of round {model.round} is not in {found.given} any more; "
            "spec.keep.last says for how many rounds models are kept"
        )
    return folder


def _source(options: argparse.Namespace) -> Source:
    return source.of(
        options.name, options.namespace, kubeconfig=options.kubeconfig, context=options.context
    )


def _round(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not the number of a round")
    return int(text)
