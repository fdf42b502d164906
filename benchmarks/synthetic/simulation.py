"""The federation without a federation: its rounds in one process, to the last bit.

Participants train by the same `descend` with the terms of the papers; what the server does is the
strategy's own arithmetic. A test holds its digests against those of `fedtrain run`.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.synthetic.train import Model, User, descend, zeros
from fedtrain import seeds
from fedtrain.aggregation.sums import sum_of
from fedtrain.digest import Digest
from fedtrain.strategies import Facts, strategy


@dataclass
class Simulation:
    """users: who takes part, by number. how: epochs, batch, lr. seed: of the training."""

    everybody: Sequence[User]
    users: Sequence[int]
    document: Mapping[str, Any]
    how: Mapping[str, Any]
    seed: int = 0
    model: Model = field(default_factory=zeros)

    def __post_init__(self) -> None:
        self._rule = strategy(self.document)
        self._slots = {slot: zeros() for slot in self._rule.slots}
        self._own = {user: zeros() for user in self.users}

    def rounds(self, count: int) -> Iterator[Model]:
        """The global model after each round."""
        for number in range(1, count + 1):
            moves, lengths = [], []
            for user in self.users:
                move, steps = self._trained(number, user)
                moves.append(move)
                lengths.append(self.how["lr"] * steps)
            self._fold(moves, lengths)
            yield self.model

    def digest(self) -> str:
        """As the federation names this global model."""
        parts = [_digest(self.model)]
        if self._slots:
            flat = {f"{s}/{n}": a for s, slot in self._slots.items() for n, a in slot.items()}
            parts.append(_digest(flat))
        return "+".join(parts)

    def _trained(self, number: int, user: int) -> tuple[Model, int]:
        local = {name: array.copy() for name, array in self.model.items()}
        mu, slot, own = float(self.document.get("mu", 0)), self._slots.get("control"), {}
        if slot is not None:
            own = {name: slot[name] - self._own[user][name] for name in local}

        def terms() -> Model:
            pulls = {name: mu * (local[name] - self.model[name]) for name in local}
            return {name: pull + own[name] for name, pull in pulls.items()} if own else pulls

        seed = seeds.derive(self.seed, number, f"user-{user:02d}")
        random = np.random.default_rng(seed)
        steps = descend(local, self.everybody[user], random, terms, **self.how)
        move = {name: local[name] - self.model[name] for name in local}
        if slot is not None:
            inverse = np.float32(-1 / (self.how["lr"] * steps))
            for name, delta in move.items():
                self._own[user][name] = delta * inverse + self._own[user][name] - slot[name]
        return move, steps

    def _fold(self, moves: Sequence[Model], lengths: Sequence[float]) -> None:
        samples = np.array([len(self.everybody[user].train[1]) for user in self.users], np.float64)
        facts = Facts(
            weights=samples / samples.sum(),
            lengths=np.array(lengths),
            population=len(self.users),
        )
        coefficients, others = self._rule.coefficients(facts), self._rule.slot_sums(facts)
        for name, base in self.model.items():
            flat = [move[name].reshape(-1) for move in moves]
            slots = {slot: values[name].reshape(-1) for slot, values in self._slots.items()}
            for slot, weights in others.items():
                slots[slot] = _sum([*flat, slots[slot]], weights)
            delta = _sum(flat, coefficients)
            after = self._rule.step(base.reshape(-1), delta, slots)
            self.model = {**self.model, name: after.reshape(base.shape)}
            for slot, values in slots.items():
                self._slots[slot][name] = values.reshape(base.shape)


def _sum(values: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    total = sum_of("Float32")
    total.start(values[0].size)
    for value, weight in zip(values, weights, strict=True):
        total.add(value, float(weight))
    return total.result().copy()


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = Digest()
    for name, array in tensors.items():
        digest.update(name, "F32", array.shape, 0, hashlib.sha256(array.tobytes()).digest())
    return digest.hexdigest()
