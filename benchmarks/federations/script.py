"""The task as a script of fedtrain's."""

import os
import time

import work

from fedtrain import rounds

part = int(os.environ["BENCH_PART"])
model = work.build()


def evaluate(model):
    return {"accuracy": work.evaluate(model)}


for rnd in rounds(model, evaluate=evaluate):
    began = time.time()
    samples, loss = work.train(model, part)
    # As metrics these reach the round's record, from wherever the script runs.
    rnd.submit(samples=samples, metrics={"loss": loss, "began": began, "ended": time.time()})
