"""`fedtrain export DIR OUT`: the SDK's own program does it; here DIR may be that of a run, too."""

import argparse
import subprocess
import sys
from pathlib import Path

import yaml


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    try:
        folder = model_folder(options.folder)
    except ValueError as error:
        print(f"{options.folder}: {error}", file=sys.stderr)
        return 1
    arguments = [str(folder), str(options.out), "--dtype", options.dtype]
    return subprocess.run([sys.executable, "-m", "fedtrain.export", *arguments]).returncode


def model_folder(given: Path) -> Path:
    """Of the global model: the folder itself, or of the last model of a `fedtrain run --out` DIR.

    Raises ValueError, one sentence.
    """
    status = given / "status.yaml"
    if not status.exists():
        return given
    try:
        model: str = yaml.safe_load(status.read_text())["globalModel"]["path"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError("its status.yaml names no global model yet") from error
    return Path(given, "exchange", model).parent
