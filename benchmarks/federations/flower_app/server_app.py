"""The task as a ServerApp of Flower's: FedAvg, evaluated at the server."""

import json
import os
import sys
import time
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

sys.path.insert(0, os.environ["BENCH_FOLDER"])
import work

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    invited = int(config["invited"])
    strategy = FedAvg(
        fraction_train=invited / work.PARTS,
        fraction_evaluate=0.0,
        min_train_nodes=invited,
        min_available_nodes=work.PARTS,
    )
    model = work.build()
    numpy = work.FRAMEWORK == "numpy"
    initial = ArrayRecord(list(model.values())) if numpy else ArrayRecord(model.state_dict())
    accuracies = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        if work.KIND != "digits" or number == 0:
            return None
        model.load_state_dict(arrays.to_torch_state_dict())
        accuracies.append(work.evaluate(model))
        return MetricRecord({"accuracy": accuracies[-1]})

    result = strategy.start(
        grid=grid,
        initial_arrays=initial,
        num_rounds=int(config["rounds"]),
        evaluate_fn=evaluate,
    )
    folder = Path(os.environ["BENCH_FOLDER"])
    if numpy:
        import numpy as np

        np.savez(folder / "model.npz", *result.arrays.to_numpy_ndarrays())
    else:
        import torch

        torch.save(result.arrays.to_torch_state_dict(), folder / "model.pt")
    document = {"finished": time.time(), "accuracy": accuracies[-1] if accuracies else None}
    (folder / ".result").write_text(json.dumps(document))
    (folder / ".result").rename(folder / "result.json")
