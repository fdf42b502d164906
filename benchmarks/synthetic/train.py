"""Synthetic(α, β) of FedProx: one of 30 users trains a logistic regression, in numpy.

    fedtrain run benchmarks/synthetic/federation.yaml --out runs/synthetic

α is how much the users' models differ, β how much their data do (Li et al. 2020, section 5.1; the
recipe of github.com/litian96/FedProx). Which user this is, is in the participant's name.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

USERS, FEATURES, CLASSES = 30, 60, 10
Model = dict[str, np.ndarray]
Terms = Callable[[], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class User:
    """Of one user: nine tenths to train on, one to test."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def users(alpha: float, beta: float, seed: int = 7) -> list[User]:
    """The same users whoever asks. alpha, beta: standard deviations."""
    random = np.random.RandomState(seed)
    sizes = random.lognormal(4, 2, USERS).astype(int) + 50
    u = random.normal(0, alpha, USERS)
    means = random.normal(0, beta, USERS)
    v = [random.normal(mean, 1, FEATURES) for mean in means]
    spread = np.diag(np.arange(1, FEATURES + 1) ** -1.2)
    made = []
    for k, size in enumerate(sizes):
        weights = random.normal(u[k], 1, (FEATURES, CLASSES))
        bias = random.normal(u[k], 1, CLASSES)
        x = random.multivariate_normal(v[k], spread, size)
        y = np.argmax(x @ weights + bias, axis=1)  # of which softmax has the same argmax
        order = random.permutation(size)
        train, test = order[: int(0.9 * size)], order[int(0.9 * size) :]
        x = x.astype(np.float32)
        made.append(User((x[train], y[train]), (x[test], y[test])))
    return made


def zeros() -> Model:
    return {
        "weight": np.zeros((FEATURES, CLASSES), np.float32),
        "bias": np.zeros(CLASSES, np.float32),
    }


def log_softmax(model: Model, x: np.ndarray) -> np.ndarray:
    logits = x @ model["weight"] + model["bias"]
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def descend(
    model: Model,
    user: User,
    random: np.random.Generator,
    terms: Terms,
    *,
    epochs: int,
    batch: int,
    lr: float,
) -> int:
    """Minibatch SGD in place; how many steps it took. terms: what is added to the gradients."""
    x, wanted = user.train[0], np.eye(CLASSES, dtype=np.float32)[user.train[1]]
    steps, rate = 0, np.float32(lr)
    for _ in range(epochs):
        order = random.permutation(len(x))
        inputs, targets = x[order], wanted[order]
        for start in range(0, len(x), batch):
            rows = inputs[start : start + batch]
            error = rows @ model["weight"]
            error += model["bias"]
            error -= error.max(axis=1, keepdims=True)
            np.exp(error, out=error)
            error /= error.sum(axis=1, keepdims=True)  # softmax
            error -= targets[start : start + batch]
            error /= np.float32(len(rows))
            added = terms()
            model["weight"] -= rate * (rows.T @ error + added["weight"])
            model["bias"] -= rate * (error.sum(axis=0) + added["bias"])
            steps += 1
    return steps


def measured(model: Model, everybody: list[User]) -> dict[str, float]:
    """Of all users together: accuracy on what was kept from training, loss on the rest."""
    x, y = (np.concatenate([user.test[n] for user in everybody]) for n in (0, 1))
    accuracy = (log_softmax(model, x).argmax(axis=1) == y).mean()
    x, y = (np.concatenate([user.train[n] for user in everybody]) for n in (0, 1))
    loss = -log_softmax(model, x)[np.arange(len(y)), y].mean()
    return {"accuracy": float(accuracy), "loss": float(loss)}


def main() -> None:
    from fedtrain import rounds

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--alpha", type=float, required=True)
    parser.add_argument("--beta", type=float, required=True)
    given = parser.parse_args()
    everybody = users(given.alpha, given.beta)
    model = zeros()
    for rnd in rounds(model, evaluate=lambda model: measured(model, everybody)):
        user = everybody[int(rnd.participant.removeprefix("user-"))]
        how = rnd.parameters
        steps = descend(
            model,
            user,
            np.random.default_rng(rnd.seed),
            rnd.gradient_terms,
            epochs=how["epochs"],
            batch=how["batch"],
            lr=how["lr"],
        )
        rnd.submit(samples=len(user.train[1]), steps=steps, learning_rate=how["lr"])


if __name__ == "__main__":
    main()
