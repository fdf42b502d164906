"""The trainings of the bench: what the user does, what becomes of all work, the end.

Everything follows from what is stored, never from the time, so that each run of a scenario comes to
the same end whatever happens to the operator.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedoperator.rounds import observed
from fedtrain.contract import Exit
from tests.cluster import playing
from tests.cluster.stage import NAME, a_training
from tests.faults.mirror import Object, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What becomes of one piece of work.

    seconds: how long it takes; None: it never ends by itself. seen: it goes on until its record
    says that it runs. silent: its message is lost. disrupted: its pod is evicted, or its process
    killed.
    """

    seconds: float | None = 0.15
    seen: bool = False
    code: int = 0
    reason: str = ""
    silent: bool = False
    disrupted: bool = False
    rejects: tuple[str, ...] = ()


class User:
    """What users do in a scenario: apply, edit, delete, and look at what is there."""

    view: View

    async def apply(self) -> None: ...
    async def edit(self, **changes: Any) -> None: ...
    async def delete(self) -> None: ...


async def _nothing(user: User) -> None:
    """The user applies the training, and watches."""


def _succeeded(view: View) -> bool:
    training = view.get("federatedtrainings", NAME) or {}
    return (training.get("status") or {}).get("phase") == "Succeeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A name, a training, what its work comes to by `role/round/participant/attempt`, the user."""

    name: str
    says: str
    training: Object
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    user: Callable[[User], Awaitable[None]] = _nothing
    done: Callable[[View], bool] = _succeeded

    def outcome(self, task: Mapping[str, Any], life: int = 1) -> Outcome:
        """life: of the training; in a later one all goes well."""
        key = "/".join(
            str(part)
            for part in (task["role"], task["round"], task.get("participant", ""), task["attempt"])
        )
        # East is slower than the others.
        usual = Outcome(seen=task["role"] == "train" and task["participant"] == "east")
        return self.outcomes.get(key, usual) if life == 1 else usual


def result(task: Mapping[str, Any], outcome: Outcome) -> Object:
    """What a task measures. The same work from the same model gives the same bytes, always."""
    model = (task.get("model") or {}).get("digest", "")
    accepted = [n for n, _ in task.get("candidates") or () if n not in outcome.rejects]
    of = f"{task['role']} {task['round']} {task.get('participant', accepted)} {model}"
    told = playing.plausible(task["role"], of, len(task.get("candidates") or ()))
    if outcome.rejects:
        names = [name for name, _ in task["candidates"]]
        told["verdicts"] = "".join("a" if name in outcome.rejects else "." for name in names)
        told["reasons"] = {"a": "NotFinite"}
    if task["role"] == "train":
        told["samples"] = 10 * (1 + hashlib.sha256(task["participant"].encode()).digest()[0] % 7)
    return told


# What a user waits for -------------------------------------------------------------------------


def states(view: View, number: int) -> dict[str, str]:
    record = view.get("federatedrounds", f"{NAME}-{number:05d}") or {}
    participants = (record.get("status") or {}).get("participants") or []
    return {p["name"]: p["state"] for p in participants}


def _alone(number: int, name: str) -> Callable[[View], bool]:
    """All others of the round have reported, and this one is known to run."""

    def condition(view: View) -> bool:
        there = states(view, number)
        others = {state for who, state in there.items() if who != name}
        return there.get(name) == "Running" and others == {"Reported"}

    return condition


def _trains(view: View, name: str) -> bool:
    return any(
        job["metadata"]["labels"].get(observed.PARTICIPANT_LABEL) == name
        and not (job.get("status") or {}).get("conditions")
        for job in view.of("jobs").values()
    )


async def _deletes(user: User) -> None:
    await user.view.until(_alone(2, "east"))
    await user.delete()


async def _applies_again(user: User) -> None:
    await _deletes(user)
    await user.apply()


def _succeeded_again(view: View) -> bool:
    return view.created["federatedtrainings", NAME] == 2 and _succeeded(view)


def _only_claims(view: View) -> bool:
    kinds = {plural for plural, _ in view.objects}
    return bool(view.deleted["federatedtrainings", NAME]) and kinds == {"persistentvolumeclaims"}


async def _suspends(user: User) -> None:
    await user.view.until(_alone(2, "east"))
    await user.edit(suspend=True)

    def rests(view: View) -> bool:
        training = view.get("federatedtrainings", NAME) or {}
        return training["status"]["phase"] == "Suspended" and not _trains(view, "east")

    await user.view.until(rests)
    await user.edit(suspend=False)


async def _changes(user: User) -> None:
    """West is given up, coast comes in its place, one more round is wanted."""
    await user.view.until(_alone(2, "west"))
    names = ("north", "south", "east", "coast")
    await user.edit(
        participants=[{"name": name} for name in names], rounds=3, quorum={"minimum": 3}
    )


def _all_stopped(view: View) -> bool:
    """Those who stay have ended, too."""
    jobs = view.of("jobs").values()
    return _succeeded(view) and all((j.get("status") or {}).get("conditions") for j in jobs)


THREE = ("north", "south", "east")
NEVER = Outcome(seconds=None)
_FULL = Outcome(code=int(Exit.EXCHANGE), reason="ExchangeFull")
_BROKEN = Outcome(code=int(Exit.TRY_AGAIN), reason="ScriptFailed")
_EVICTED = Outcome(disrupted=True)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="plain",
            says="3 rounds of 3 participants, of which the first record is let go",
            training=a_training(THREE, rounds=3, history=3),
        ),
        Scenario(
            name="retry",
            says="a failed attempt, a spent budget, an eviction",
            training=a_training(THREE, rounds=3, retries=1, quorum={"minimum": 2}),
            outcomes={
                "train/1/east/1": _BROKEN,
                "train/2/south/1": _BROKEN,
                "train/2/south/2": _BROKEN,
                "train/3/north/1": _EVICTED,
            },
        ),
        Scenario(
            name="delete",
            says="deleted in the middle of round 2",
            training=a_training(THREE, rounds=3),
            outcomes={"train/2/east/1": NEVER},
            user=_deletes,
            done=_only_claims,
        ),
        Scenario(
            name="again",
            says="deleted in the middle of round 2, and at once applied again",
            training=a_training(THREE, rounds=3),
            outcomes={"train/2/east/1": NEVER},
            user=_applies_again,
            done=_succeeded_again,
        ),
        Scenario(
            name="suspend",
            says="suspended and resumed in the middle of round 2",
            training=a_training(THREE, rounds=3),
            outcomes={"train/2/east/1": NEVER},
            user=_suspends,
        ),
        Scenario(
            name="edit",
            says="a participant replaced and a round added in the middle of round 2",
            training=a_training((*THREE, "west"), rounds=2, quorum={"minimum": 3}),
            outcomes={"train/2/west/1": NEVER},
            user=_changes,
        ),
        Scenario(
            name="aggregator",
            says="an aggregator that fails, is evicted, whose word is lost; an update it rejects",
            training=a_training(THREE, rounds=3, quorum={"minimum": 2}),
            outcomes={
                "aggregate/1//1": _FULL,
                "aggregate/1//2": _EVICTED,
                "aggregate/2//1": Outcome(silent=True),
                "aggregate/3//1": Outcome(rejects=("south",)),
            },
        ),
        Scenario(
            name="resident",
            says="pods that stay, of which one is lost at its work in round 2",
            training=a_training(THREE, rounds=3, pods="Resident"),
            outcomes={"train/2/south/1": _EVICTED},
            done=_all_stopped,
        ),
    )
}
