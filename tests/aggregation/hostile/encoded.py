"""Encoded updates as honest participants write them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedtrain.tensorfile import TensorWriter, dtype_name, plan


def write_encoded(
    path: Path, update: Mapping[str, np.ndarray], document: Mapping[str, Any]
) -> None:
    """Parameters by the codec's parts, whole tensors at once; buffers and integers as they are."""
    from fedtrain import codecs

    codec = codecs.codec(document)
    assert codec is not None
    arrays: dict[str, np.ndarray] = {}
    layout = []
    for name, values in update.items():
        if values.dtype.kind != "f" or "running" in name:
            layout.append((name, dtype_name(values), values.shape))
            arrays[name] = values.reshape(-1)
            continue
        parts = codec.parts(values.shape)
        for part, array in zip(parts, codec.encode(values.reshape(-1)), strict=True):
            layout.append((name + part.suffix, part.dtype, part.shape))
            arrays[name + part.suffix] = array
    with TensorWriter(path, plan(layout)) as writer:
        for name, array in arrays.items():
            writer.write(name, 0, array)
