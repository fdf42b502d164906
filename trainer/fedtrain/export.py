"""`python -m fedtrain.export DIR OUT`: a global model as Transformers and PEFT read it.

DIR is a folder global/<round>/<n>. OUT gets one safetensors file, the shards merged, under the name
that `from_pretrained` looks for (adapter_model.safetensors where an adapter_config.json lies beside
the model, else model.safetensors), and the texts that travel with the model.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedtrain import modeltexts
from fedtrain.adapters import CONFIG_FILE
from fedtrain.codecs import BFloat16
from fedtrain.contract import MANIFEST_FILE, MODEL_FILE
from fedtrain.layout import FLOATING, numpy_dtype, plan
from fedtrain.manifest import Manifest
from fedtrain.modelfiles import ModelFiles, open_model
from fedtrain.tensorfile import PIECE_BYTES, TensorWriter, read_text

ADAPTER_FILE = "adapter_model.safetensors"
DTYPES = ("fp32", "bf16")


def export(folder: Path, out: Path, dtype: str = "fp32") -> Path:
    """Write it; the path of the tensors. out: made if need be, and must not hold a model.

    Raises ValueError (TensorFileError) for what is no global model, OSError.
    """
    manifest = Manifest.from_json(read_text(folder / MANIFEST_FILE))
    texts = modeltexts.read(folder, manifest.files)
    with open_model(folder) as model:
        out.mkdir(parents=True, exist_ok=True)
        path = out / (ADAPTER_FILE if CONFIG_FILE in texts else MODEL_FILE)
        narrow = dtype == "bf16"
        layout = plan(
            (info.name, "BF16" if narrow and info.dtype in FLOATING else info.dtype, info.shape)
            for info in model.tensors.values()
        )
        with TensorWriter(path, layout, {"format": "pt"}) as writer:
            for name in model.tensors:
                _copy(model, name, writer, narrow)
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; what is wrong is said in one line."""
    parser = argparse.ArgumentParser(prog="fedtrain export")
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0])
    options = parser.parse_args(arguments)
    try:
        path = export(options.folder, options.out, options.dtype)
    except FileExistsError as error:
        print(f"{error.filename} exists already; remove it, or use another OUT", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"{options.folder} is not exported: {error}", file=sys.stderr)
        return 1
    print(path)
    return os.EX_OK


def _copy(model: ModelFiles, name: str, writer: TensorWriter, narrow: bool) -> None:
    info = model.tensors[name]
    step = PIECE_BYTES // numpy_dtype(info.dtype).itemsize
    for start in range(0, info.count, step):
        piece: Any = model.read(name, start, min(start + step, info.count))
        if narrow and info.dtype in FLOATING:
            (piece,) = BFloat16().encode(piece.astype(np.float32, copy=False))
        writer.write(name, start, piece)


if __name__ == "__main__":
    sys.exit(main())
