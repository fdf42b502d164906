"""Handwritten digits by logistic regression, in numpy alone: what an honest participant runs.

As one process, without a federation:

    python train.py

As a federation of seven, two of whom mean harm (see forge.py and federation.yaml):

    fedtrain run federation.yaml --out out

As the same federation on a Kubernetes cluster (README.md says how the scripts get there):

    kubectl apply -f federation.yaml && kubectl get federatedrounds --watch
"""

import importlib.util
import os
from pathlib import Path

import numpy as np

from fedtrain import rounds

PARTS = 7
TEST_IMAGES = 360
part = int(os.environ.get("PART", "0"))
poison = float(os.environ.get("POISON", "0"))
"""Not zero: hand in minus this many times what was learned. Well formed, and harmful."""

# scikit-learn's own file, read without importing scikit-learn.
package = importlib.util.find_spec("sklearn").submodule_search_locations[0]
table = np.loadtxt(Path(package, "datasets", "data", "digits.csv.gz"), delimiter=",")
table = table[np.random.RandomState(0).permutation(len(table))]
images, labels = (table[:, :-1] / 16).astype(np.float32), table[:, -1].astype(int)
mine = slice(TEST_IMAGES + part, None, PARTS)
own_images, own_labels = images[mine], labels[mine]

model = {"weight": np.zeros((64, 10), np.float32), "bias": np.zeros(10, np.float32)}


def probabilities(model: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    logits = images @ model["weight"] + model["bias"]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def evaluate(model: dict[str, np.ndarray]) -> dict[str, float]:
    """How well a global model does on the images that nobody trains on."""
    guessed = probabilities(model, images[:TEST_IMAGES]).argmax(axis=1)
    accuracy = float((guessed == labels[:TEST_IMAGES]).mean())
    return {"accuracy": accuracy, "samples": TEST_IMAGES}


for rnd in rounds(model, evaluate=evaluate):
    start = {name: array.copy() for name, array in model.items()}
    generator = np.random.default_rng(rnd.seed)
    learning_rate, batch_size = rnd.parameters.get("lr", 0.5), rnd.parameters.get("batch", 32)
    for _ in range(rnd.parameters.get("localEpochs", 5)):
        order = generator.permutation(len(own_labels))
        for batch in np.array_split(order, max(1, len(order) // batch_size)):
            error = probabilities(model, own_images[batch])
            error[np.arange(len(batch)), own_labels[batch]] -= 1
            model["weight"] -= learning_rate / len(batch) * own_images[batch].T @ error
            model["bias"] -= learning_rate / len(batch) * error.sum(axis=0)
    if poison:
        for name, array in model.items():
            array[:] = start[name] - poison * (array - start[name])
    rnd.submit(samples=len(own_labels), metrics={"accuracy": evaluate(model)["accuracy"]})
