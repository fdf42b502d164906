"""What a look at a training has to go by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from fedoperator.api.training import Training
from fedoperator.rounds import retry
from fedoperator.rounds.observed import Child, Identity, Trouble
from fedoperator.rounds.resident import Carrier


@dataclass(frozen=True, slots=True)
class Look:
    """The training, its children as listed, what could not be made, and the time.

    children: every piece of work of which something is known. carriers: those of them that stay,
    by participant; the hub under "". prepared: the last spec, by its generation, all of whose
    participants have a folder.
    """

    training: Training
    children: Mapping[Identity, Child]
    troubles: Mapping[str, Trouble]
    now: datetime
    carriers: Mapping[str, Carrier] = field(default_factory=dict)
    prepared: int = 0

    def trouble_of(self, name: str, participant: str) -> Trouble | None:
        """Why a workload that is not there could not be made, or why its carrier is not ready."""
        if name in self.troubles:
            return self.troubles[name]
        carrier = self.carriers.get(participant)
        return carrier.job.trouble if carrier is not None else None

    @property
    def edited(self) -> bool:
        """Whether the spec changed since the last look; every back-off ends then."""
        return self.training.generation != self.training.status.observed_generation

    def is_past(self, moment: datetime | None) -> bool:
        """Whether a back-off is over; one longer than any was written by a clock that ran ahead."""
        over = moment is None or self.now >= moment or self.edited
        return over or (moment is not None and moment - self.now > retry.LONGEST)

    def since(self, moment: datetime | None) -> datetime:
        """Where a clock began, now at the latest, whatever clock another leader had."""
        return self.now if moment is None else min(moment, self.now)
