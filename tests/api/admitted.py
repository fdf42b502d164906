"""The pure rules against a real API server, over generated trainings: equal verdicts.

    python -m tests.api.admitted [--count 10000] [--seed 0]

`fedtrain validate` and the operator judge by `fedoperator.api.admission`; the API server by the
CRD's schema and CEL. Every difference is printed with its seed, and made as small as it goes.
"""

import argparse
import asyncio
import copy
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fedoperator import errors
from fedoperator.api import API_VERSION, admission
from fedoperator.cluster.api import Api, configuration
from tests.api.generated import Document, Generator, Path, parts, without

AT_ONCE = 8
"""Requests that are under way together."""

EXPLAINED = 8
"""Differences that are made smaller; the others are told as they are."""

TRIES = 200
"""Parts of a document that may be left out, to make it smaller."""

STRICT = {"dryRun": "All", "fieldValidation": "Strict"}
COLLECTION = f"/apis/{API_VERSION}/namespaces/{{}}/federatedtrainings"

Judge = Callable[[Document], Awaitable[str | None]]
"""The API server's sentence about a document; None if it accepts it."""


@dataclass
class Tally:
    """accepted, refused: by both. differences: each in a few lines. beyond: what the rules alone
    refuse, by its sentence's field."""

    accepted: int = 0
    refused: int = 0
    differences: list[str] = field(default_factory=list)
    beyond: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return self.accepted + self.refused + len(self.differences)

    def __str__(self) -> str:
        told = f"{self.count} trainings: {self.accepted} accepted, {self.refused} refused"
        beyond = f"{self.beyond.total()} of them refused by the rules alone"
        return f"{told}; {beyond}; {len(self.differences)} differences"


@dataclass(frozen=True)
class Case:
    """One document; old: as it is in the cluster, or None for a new one."""

    seed: str
    document: Document
    judge: Judge
    old: Document | None = None

    def problems(self, document: Document) -> list[admission.Problem]:
        return admission.problems(self.old, document)


async def differs(case: Case, document: Document) -> str | None:
    """How the verdicts differ; None if they are equal."""
    said = await case.judge(document)
    ours = case.problems(document)
    if (said is None) == all(problem.beyond for problem in ours):
        return None
    text = "; ".join(map(str, ours)) or "no problem"
    return f"the rules: {text}\n    the API server: {said or 'accepts it'}"


async def judge(case: Case, tally: Tally) -> None:
    difference = await differs(case, case.document)
    if difference is None:
        ours = case.problems(case.document)
        tally.beyond.update({p.field for p in ours} if ours and all(p.beyond for p in ours) else ())
        if any(not problem.beyond for problem in ours):
            tally.refused += 1
        else:
            tally.accepted += 1
        return
    least = case.document
    if len(tally.differences) < EXPLAINED:
        least, difference = await _least(case, difference)
    text = json.dumps(least, ensure_ascii=True)
    text = text if len(text) < 1500 else f"{text[:1500]} ..."
    tally.differences.append(f"seed {case.seed}: {text}\n    {difference}")


async def _least(case: Case, difference: str) -> tuple[Document, str]:
    """As much of the document as still makes the difference."""
    least = case.document
    gone: list[Path] = []
    for path in list(parts(case.document))[:TRIES]:
        if any(path[: len(before)] == before for before in gone):
            continue
        less = without(least, path)
        found = await differs(case, less)
        if found is not None:
            least, difference = less, found
            gone.append(path)
    return least, difference


def new_one(api: Api, namespace: str) -> Judge:
    async def ask(document: Document) -> str | None:
        path = COLLECTION.format(namespace)
        return await _said(api, "POST", path, document)

    return ask


def change_of(api: Api, old: Document) -> Judge:
    meta = old["metadata"]
    path = f"{COLLECTION.format(meta['namespace'])}/{meta['name']}"

    async def ask(document: Document) -> str | None:
        about = document.get("metadata")
        version = {"resourceVersion": meta["resourceVersion"]}
        named = {**about, **version} if isinstance(about, dict) else about
        return await _said(api, "PUT", path, {**document, "metadata": named})

    return ask


async def _said(api: Api, method: str, path: str, document: Document) -> str | None:
    try:
        await api.request(method, path, document, STRICT)
    except errors.Refused as error:
        return str(error)
    return None


def created(api: Api, namespace: str, count: int, seed: str) -> Iterator[Case]:
    ask = new_one(api, namespace)
    for number in range(count):
        name = f"{seed}-new-{number}"
        yield Case(name, Generator(name).training(), ask)


async def stored(api: Api, namespace: str, count: int, seed: str) -> AsyncIterator[Document]:
    """Accepted trainings, in the cluster for real: every second one has started."""
    path = COLLECTION.format(namespace)
    number = made = 0
    while made < count:
        number += 1
        document = Generator(f"{seed}-old-{number}").training()
        document = {**document, "metadata": {"name": f"old-{number}"}}
        if admission.problems(None, document):
            continue
        there = await api.request("POST", path, document)
        if made % 2:
            there = {**there, "status": {"round": made % 3, "phase": "Training"}}
            there = await api.request("PUT", f"{path}/{there['metadata']['name']}/status", there)
        made += 1
        yield there


def updated(api: Api, olds: list[Document], count: int, seed: str) -> Iterator[Case]:
    judges = [change_of(api, old) for old in olds]
    for number in range(count):
        name, old = f"{seed}-change-{number}", olds[number % len(olds)]
        plain: dict[str, Any] = {k: copy.deepcopy(v) for k, v in old.items() if k != "status"}
        plain["metadata"] = {"name": old["metadata"]["name"]}
        yield Case(name, Generator(name).changed(plain), judges[number % len(olds)], old)


async def all_of(cases: Iterator[Case]) -> Tally:
    """Judge them, some at a time."""
    tally = Tally()

    async def work() -> None:
        for case in cases:
            await judge(case, tally)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return tally


async def compared(api: Api, namespace: str, count: int, seed: str) -> dict[str, Tally]:
    """Two thirds are new ones, one third are changes of those that are there."""
    await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    changes = count // 3
    olds = [old async for old in stored(api, namespace, max(2, changes // 25), seed)]
    return {
        "new": await all_of(created(api, namespace, count - changes, seed)),
        "changes": await all_of(updated(api, olds, changes, seed)),
    }


async def _main(count: int, seed: str) -> int:
    from tests.conftest import serving

    with serving() as kubectl:
        api = Api(await configuration(kubectl.kubeconfig))
        try:
            tallies = await compared(api, "admitted", count, seed)
        finally:
            await api.close()
    for name, tally in tallies.items():
        print(f"{name}: {tally}")
        for difference in tally.differences:
            print(f"  {difference}")
    return 1 if any(tally.differences for tally in tallies.values()) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The rules against an API server.")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", default="0")
    given = parser.parse_args()
    sys.exit(asyncio.run(_main(given.count, given.seed)))
