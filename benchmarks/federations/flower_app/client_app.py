"""The task as a ClientApp of Flower's."""

import os
import sys

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

sys.path.insert(0, os.environ["BENCH_FOLDER"])
import work

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    part = int(context.node_config["partition-id"])
    number = int(message.content["config"]["server-round"])
    work.stamp(number, part, "began")
    arrays = message.content["arrays"]
    if work.FRAMEWORK == "numpy":
        model = {"w": arrays.to_numpy_ndarrays()[0].copy()}
        samples, loss = work.train(model, part)
        record = ArrayRecord(list(model.values()))
    else:
        model = work.build()
        model.load_state_dict(arrays.to_torch_state_dict())
        samples, loss = work.train(model, part)
        record = ArrayRecord(model.state_dict())
    work.stamp(number, part, "ended")
    metrics = MetricRecord({"num-examples": samples, "loss": loss})
    return Message(content=RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)
