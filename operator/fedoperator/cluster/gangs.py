"""PodGroups: the pods of a participant start together, where `scheduling.gang` asks for it.

A PodGroup goes with its Job, so it is made after it, of the Job as listed; until then the scheduler
lets the Job's pods wait. An operator that died between the two makes it at its next look.
"""

from collections.abc import Sequence
from typing import Any

from fedoperator import errors
from fedoperator.api.training import Training
from fedoperator.cluster.commit import Committer
from fedoperator.rounds import jobs, observed
from fedoperator.rounds.observed import Trouble
from fedoperator.rounds.plan import Event

UNAVAILABLE = Event(
    reason="GangUnavailable",
    message="this cluster serves no PodGroups (scheduling.k8s.io/v1beta1, feature gate"
    " GenericWorkload), so pods start one by one; have it turned on, or take scheduling.gang out",
    warning=True,
)


class Gangs:
    """Remembers which Jobs have their PodGroup, and which trainings were told why one has none."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._grouped: dict[str, set[str]] = {}
        """uid of a training → the uids of its Jobs."""
        self._told: dict[str, set[str]] = {}
        """uid of a training → reasons."""

    async def keep(self, training: Training, owned: Sequence[dict[str, Any]]) -> bool:
        """Give a PodGroup to each of the training's Jobs, as listed, that waits for one.

        Whether one was refused: nothing tells when it could be made, so it is to be tried again.
        """
        refused = False
        if training.spec.scheduling is None or not training.spec.scheduling.gang:
            return refused
        asked = [job for job in owned if (job["spec"].get("completions") or 1) > 1]
        grouped = self._grouped.get(training.uid, set()) & {j["metadata"]["uid"] for j in asked}
        self._grouped[training.uid] = grouped
        for job in asked:
            meta, group = job["metadata"], jobs.pod_group(job)
            if meta["uid"] in grouped or "deletionTimestamp" in meta or observed.is_over(job):
                continue
            if group is None:  # A server without them leaves out what it does not know.
                await self._tell(training, UNAVAILABLE)
                continue
            try:
                made = await self._committer.post(training, group, owner=meta["uid"])
            except errors.Gone:
                await self._tell(training, UNAVAILABLE)
                continue
            if isinstance(made, Trouble):
                refused = True
                said = Event(reason=made.reason, message=made.message, warning=True)
                await self._tell(training, said)
                continue
            grouped.add(meta["uid"])
        return refused

    async def _tell(self, training: Training, event: Event) -> None:
        """Each reason once, or every look would."""
        told = self._told.setdefault(training.uid, set())
        if event.reason not in told:
            told.add(event.reason)
            await self._committer.tell(training, [event])

    def forget(self, uid: str) -> None:
        """That training is gone."""
        self._grouped.pop(uid, None)
        self._told.pop(uid, None)
