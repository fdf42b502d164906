"""Generated trainings on a real control plane, each to its end or to the reason why it has none.

    python -m tests.api.lived [--count 300] [--seed 0]

What the rules accept is applied as it is, but for its name, its exchange and its number of rounds,
and has the claims that it names; kubelets are played (benchmarks/operated). Each must succeed,
fail, be suspended, or say what it waits for. The operator must never end nor meet a bug of its own,
and a plain training beside all the others must succeed as if it were alone. Played pods are no
hubs: `pods: Resident` is the fault bench's and the real cluster's.
"""

import argparse
import itertools
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.operated.world import NAMESPACE, World, a_training, claim, world
from devcluster.replica import Replica
from fedoperator.api import admission
from tests.api.generated import Document, Generator

PATIENCE = 120.0
"""Seconds without a change of any status, after which who has not said where it is never will; a
Job that cannot start is looked into after half a minute."""

LIMIT = 1200.0
"""Seconds for a batch in all."""

BATCH = 60
"""Trainings at once: two cores have the whole control plane on them."""

ROUNDS = 3
"""At most; ten thousand take their time."""

ENDS = ("Succeeded", "Failed", "Suspended")


def accepted(seed: str) -> Iterator[Document]:
    """Trainings that the rules accept, without end; each with a name of its own."""
    for number in itertools.count():
        document = Generator(f"{seed}-{number}").training()
        meta = document["metadata"]
        kept = {key: meta[key] for key in ("labels", "annotations") if key in meta}
        document["metadata"] = {"name": f"lived-{number:04}", "namespace": NAMESPACE, **kept}
        spec = document["spec"]
        if isinstance(spec, dict):
            spec["exchange"] = {"claimName": "exchange"}
            rounds = spec.get("rounds")
            spec["rounds"] = min(rounds, ROUNDS) if isinstance(rounds, int) else rounds
        if not admission.problems(None, document) and spec.get("pods") != "Resident":
            yield document


def claims(value: Any) -> Iterator[str]:
    """The names of all claims in a document."""
    if isinstance(value, dict):
        found = value.get("claimName")
        yield from [found] if isinstance(found, str) else []
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        yield from claims(one)


def told(document: Document) -> str | None:
    """Where a training is, in a word that ends the waiting; None if it is still on its way."""
    status = document.get("status") or {}
    phase = status.get("phase", "")
    if phase in ENDS:
        return str(phase)
    if phase == "Blocked" and status.get("reason") and status.get("message"):
        return f"Blocked: {status['reason']}"
    return None


def lived(w: World, documents: list[Document]) -> Counter[str]:
    """How they ended. Raises TimeoutError with those that say nothing."""
    names = [document["metadata"]["name"] for document in documents]
    # kubectl knows no null as a value of a label; the API server takes it for nothing.
    whole = {"apiVersion": "v1", "kind": "List", "items": documents}
    w.kubectl("create", "--validate=false", "-f", "-", document=whole)
    began = changed = time.monotonic()
    before: dict[str, Any] = {}
    while True:
        there = {d["metadata"]["name"]: d for d in json.loads(w.raw("federatedtrainings"))["items"]}
        words = {name: told(there[name]) for name in names}
        if None not in words.values():
            return Counter(word for word in words.values() if word is not None)
        now, status = time.monotonic(), {name: there[name].get("status") for name in names}
        before, changed = status, now if status != before else changed
        if now - changed > PATIENCE or now - began > LIMIT:
            silent = [name for name, word in words.items() if word is None]
            first = {key: there[silent[0]].get(key) for key in ("spec", "status")}
            raise TimeoutError(f"{', '.join(silent)}; the first is {json.dumps(first)}")
        time.sleep(2)


def bugs(log: Path) -> list[str]:
    """Lines of the operator's log that no training may be the cause of."""
    found = re.compile(r"Traceback|InternalError|level=CRITICAL")
    return [line for line in log.read_text().splitlines() if found.search(line)]


def run(count: int, seed: str) -> Counter[str]:
    """How `count` trainings ended. Raises AssertionError or TimeoutError."""
    with tempfile.TemporaryDirectory(prefix="fedtrain-lived-") as name:
        folder, ends = Path(name), Counter[str]()
        with world(folder) as w:
            made = {"exchange"}
            operator = Replica(w.cluster.kubeconfig, folder / "operator.log")
            try:
                every = accepted(seed)
                for start in range(0, count, BATCH):
                    some = list(itertools.islice(every, min(BATCH, count - start)))
                    new = sorted(set(claims(some)) - made)
                    w.create([document for one in new for document in claim(one)])
                    made |= set(new)
                    ends += lived(w, some)
                    print(f"{start + len(some)} of {count}: {dict(ends)}", flush=True)
                    witness = a_training(
                        f"witness{start}", 3, rounds=2, least=1, most=2, evaluation=None
                    )
                    assert lived(w, [witness]) == Counter({"Succeeded": 1})
                    w.kubectl("delete", "federatedtrainings", "--all", f"--namespace={NAMESPACE}")
                assert operator.process.poll() is None, "the operator has ended"
                assert bugs(folder / "operator.log") == []
            finally:
                operator.kill()
        return ends


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", default="0")
    given: Any = parser.parse_args(arguments)
    ends = run(given.count, given.seed)
    print(
        f"{ends.total()} trainings: " + ", ".join(f"{n} {word}" for word, n in ends.most_common())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
