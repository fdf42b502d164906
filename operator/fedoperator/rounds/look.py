"""What a look at a training has to go by."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fedoperator.api.training import Training
from fedoperator.rounds.observed import Child, Identity, Trouble


@dataclass(frozen=True, slots=True)
class Look:
    """The training, its children as listed, what could not be made, and the time."""

    training: Training
    children: Mapping[Identity, Child]
    troubles: Mapping[str, Trouble]
    now: datetime

    @property
    def edited(self) -> bool:
        """Whether the spec changed since the last look; every back-off ends then."""
        return self.training.generation != self.training.status.observed_generation

    def is_past(self, moment: datetime | None) -> bool:
        return moment is None or self.now >= moment or self.edited
