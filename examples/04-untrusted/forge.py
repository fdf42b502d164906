"""A participant that does without the SDK's honesty and forges its files, each round another way.

Its own folder on the exchange is all that it can write to, so a forged update is all that it can
do. None of these reaches the model: the aggregator names what is wrong, and goes on without it.
"""

import os
from pathlib import Path

import numpy as np

from fedtrain.contract import MOUNT, ROOT_ENV, TASK_ENV, Receipt, decode_task
from fedtrain.layout import plan
from fedtrain.modelfiles import open_model
from fedtrain.tensorfile import TensorWriter

task = decode_task(os.environ[TASK_ENV])
root = Path(os.environ.get(ROOT_ENV, MOUNT))
folder = root / task.output
folder.mkdir(parents=True, exist_ok=True)
update = folder / "update.safetensors"

lies = ("NaN", "digest", "base", "samples", "pipe")
lie = lies[(task.round - 1) % len(lies)]

with open_model(root / task.model.path) as base:
    tensors = plan((one.name, one.dtype, one.shape) for one in base.tensors.values())
with TensorWriter(update, tensors) as file:
    for tensor in tensors:
        values = np.full(tensor.count, 0.01, np.float32)
        values[0] = np.nan if lie == "NaN" else 0.01
        file.write(tensor.name, 0, values)
    digest = file.digest()
size = update.stat().st_size

if lie == "pipe":  # whoever opens it for reading waits for a writer, for ever
    update.unlink()
    os.mkfifo(update)

receipt = Receipt(
    training=task.uid,
    round=task.round,
    participant=task.participant,
    attempt=task.attempt,
    base="sha256:" + "0" * 64 if lie == "base" else task.model.digest,
    digest="sha256:" + "1" * 64 if lie == "digest" else digest,
    size=size,
    samples=True if lie == "samples" else 10**9,
)
(folder / "receipt.json").write_text(receipt.to_json())
print(f"round {task.round}: handed in a forgery ({lie})")
