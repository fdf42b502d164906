"""The task as a script of FLARE's client API."""

import os
import sys

import nvflare.client as flare

sys.path.insert(0, os.environ["BENCH_FOLDER"])
import work

flare.init()
part = int(flare.get_site_name().rsplit("-", 1)[1]) - 1
model = work.build()
while flare.is_running():
    received = flare.receive()
    if received is None:
        break
    number = received.current_round + 1
    work.stamp(number, part, "began")
    metrics = {}
    if work.FRAMEWORK == "numpy":
        model = {name: array.copy() for name, array in received.params.items()}
        samples, _ = work.train(model, part)
        params = model
    else:
        model.load_state_dict(received.params)
        if work.KIND == "digits":  # a FLARE client measures the model that it received
            metrics = {"accuracy": work.evaluate(model)}
        samples, _ = work.train(model, part)
        params = model.state_dict()
    work.stamp(number, part, "ended")
    flare.send(
        flare.FLModel(params=params, metrics=metrics, meta={"NUM_STEPS_CURRENT_ROUND": samples})
    )
