"""`fedtrain export DIR OUT`: the SDK's own program does it; here DIR may be that of a run, too."""

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

from fedoperator.cli import options as common
from fedoperator.local.folder import Refused
from fedtrain.contract import MANIFEST_FILE

DESCRIPTION = """\
Write a global model into OUT: one safetensors file with the config and the tokenizer that travel
with it, or an adapter with its adapter_config.json, for from_pretrained(OUT)."""


def add(commands: common.Commands) -> None:
    export = common.command(
        commands,
        "export",
        help="write a global model as Transformers and PEFT read it",
        description=DESCRIPTION,
    )
    export.add_argument("folder", metavar="DIR", type=Path, help="global/ROUND/N, or a run's DIR")
    export.add_argument("out", metavar="OUT", type=Path, help="made if need be")
    export.add_argument(
        "--dtype", choices=("fp32", "bf16"), default="fp32", help="of the tensors (%(default)s)"
    )
    export.set_defaults(act=act)


def act(options: argparse.Namespace) -> int:
    """The exit code."""
    return export(model_folder(options.folder), options.out, options.dtype)


def export(folder: Path, out: Path, dtype: str = "fp32") -> int:
    """The exit code. folder: global/<round>/<n>."""
    return sdk("fedtrain.export", str(folder), str(out), "--dtype", dtype)


def sdk(program: str, *arguments: str) -> int:
    """The exit code of a program of the SDK, which the operator runs and never imports."""
    if any("\0" in argument for argument in arguments):
        raise Refused("a path with a zero byte in it is none; name another one")
    return subprocess.run([sys.executable, "-m", program, *arguments]).returncode


def model_folder(given: Path) -> Path:
    """Of the global model: the folder itself, or of the last model of a `fedtrain run --out` DIR.

    Raises Refused if there is no such model.
    """
    folder = last_model(given)
    try:
        there = (folder / MANIFEST_FILE).exists()
    except (OSError, ValueError):  # no name that a file could have
        there = False
    if not there:
        how = "name global/ROUND/N, a downloaded folder, or the --out of a run"
        raise Refused(f"{str(given)!r} holds no global model: {MANIFEST_FILE} is missing; {how}")
    return folder


def last_model(given: Path) -> Path:
    """The folder of the last model of a run; `given` itself where that is none."""
    status = given / "status.yaml"
    try:
        if not status.exists():
            return given
        model: str = yaml.safe_load(status.read_text())["globalModel"]["path"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise Refused(f"{given}: its status.yaml names no global model yet") from error
    return Path(given, "exchange", model).parent
