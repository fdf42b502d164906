"""One round, as its FederatedRound tells it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedoperator.api.base import GlobalModel
from fedoperator.api.round import Assignment, Record
from fedoperator.notebook import html
from fedoperator.notebook.model import StateDict

Reader = Callable[[GlobalModel | None, "str | Path | None"], StateDict]


@dataclass(frozen=True, slots=True)
class Round:
    """A round that is over. record: all that is known of it, as `kubectl get fedr` shows it."""

    record: Record
    _read: Reader = field(repr=False, compare=False)

    @property
    def number(self) -> int:
        """Counts from 1."""
        return self.record.spec.round

    @property
    def metrics(self) -> Mapping[str, float]:
        """Of this round's global model; empty if nobody evaluated it."""
        return dict(self.record.status.metrics)

    @property
    def participants(self) -> tuple[Assignment, ...]:
        """Everyone invited: state, samples, weight, seconds, metrics of the training, digest."""
        return tuple(self.record.status.participants)

    @property
    def accepted(self) -> tuple[str, ...]:
        """Whose updates are part of the model."""
        return tuple(p.name for p in self.participants if p.state == "Accepted")

    @property
    def missing(self) -> Mapping[str, str]:
        """Who was invited and is not part of it, and why, in one word."""
        return {p.name: p.reason or p.state for p in self.participants if p.state != "Accepted"}

    @property
    def samples(self) -> int:
        """Of all accepted, in the unit of spec.weight."""
        return sum(p.samples or 0 for p in self.participants if p.state == "Accepted")

    @property
    def seconds(self) -> float | None:
        """From its beginning to its global model."""
        status = self.record.status
        if status.started_at is None or status.published_at is None:
            return None
        return (status.published_at - status.started_at).total_seconds()

    @property
    def digest(self) -> str | None:
        """Of its global model."""
        model = self.record.status.global_model
        return model.digest if model is not None else None

    def trained(self) -> dict[str, float]:
        """What the accepted reported of their training, each in the mean that they counted in."""
        status = self.record.status
        reported = sorted({name for p in self.participants for name in p.metrics})
        means = {name: status.trained(name) for name in reported}
        return {name: mean for name, mean in means.items() if mean is not None}

    def model(self, exchange: str | Path | None = None) -> StateDict:
        """Its global model, while the exchange still keeps it; see `Run.model`."""
        return self._read(self.record.status.global_model, exchange)

    def __repr__(self) -> str:
        words = [f"{name}={value:.4g}" for name, value in sorted(self.metrics.items())]
        accepted = f"accepted {len(self.accepted)}/{len(self.participants)}"
        return f"<Round {' '.join([str(self.number), accepted, *words])}>"

    def _repr_html_(self) -> str:
        rows = [
            [
                p.name,
                p.state,
                "" if p.samples is None else p.samples,
                "" if p.weight is None else f"{p.weight:.1%}",
                html.measured(p.metrics),
                "" if p.seconds is None else f"{p.seconds:.1f}",
                "" if p.state == "Accepted" else p.message or p.reason,
            ]
            for p in self.participants[: html.MOST]
        ]
        heads = ["participant", "state", "samples", "weight", "metrics", "seconds", "why not"]
        left_out = len(self.participants) - html.MOST, "participants"
        title = html.measured(self.metrics)
        return html.table(f"round {self.number}", title, heads, rows, left_out)
