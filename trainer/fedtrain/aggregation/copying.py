"""Frozen tensors: no update holds them, and the next model has the base's, hashed on the way."""

from collections.abc import Sequence

import numpy as np

from fedtrain.aggregation.fold import BaseModel
from fedtrain.aggregation.hashing import RunningTiles
from fedtrain.aggregation.record import Record
from fedtrain.aggregation.report import Report
from fedtrain.errors import TryAgain
from fedtrain.layout import TensorFileError, numpy_dtype
from fedtrain.schema import TensorSpec
from fedtrain.tensorfile import PIECE_BYTES, TensorWriter, bytes_of


def copied(specs: Sequence[TensorSpec], base: BaseModel, model_file: TensorWriter) -> Report:
    """Copy them; the hashes of what was read. Raises TryAgain (BaseUnreadable), OSError."""
    record = Record()
    for spec in specs:
        count, tiles = base.tensors[spec.name].count, RunningTiles()
        step = PIECE_BYTES // numpy_dtype(spec.dtype).itemsize
        for start in range(0, count, step):
            piece = np.empty(min(step, count - start), numpy_dtype(spec.dtype))
            try:
                base.read_into(spec.name, start, piece)
            except TensorFileError as error:
                sentence = f"the base's {spec.name[:80]!a}: {error}"
                raise TryAgain("BaseUnreadable", sentence) from error
            tiles.update(bytes_of(piece))
            model_file.write(spec.name, start, piece)
        record.hashed("base", spec.name, 0, tiles.finish())
    return record.report()
