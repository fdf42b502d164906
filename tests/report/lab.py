"""Trainings and records as they are read, and pages taken apart again."""

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

from fedoperator.api.round import Record, record_name
from fedoperator.api.training import Training

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64


def moment(seconds: float) -> str:
    return (BEGIN + timedelta(seconds=seconds)).isoformat()


def a_training(*names: str, name: str = "digits", rounds: int = 3, **status: Any) -> Training:
    """Of these participants; `spec` changes its spec, everything else is status."""
    spec = {
        "rounds": rounds,
        "trainer": {"image": "train", "command": ["python", "train.py"]},
        "participants": [{"name": n} for n in names or ("north", "south", "west")],
        "exchange": {"size": "1Gi"},
        **status.pop("spec", {}),
    }
    metadata = {"name": name, "namespace": "lab", "uid": "uid-1"}
    return Training.from_object({"metadata": metadata, "spec": spec, "status": status})


def a_round(
    number: int, *participants: dict[str, Any], begin: float = 0.0, **status: Any
) -> Record:
    """Published 30 s after it began; `spec` changes its spec, everything else is status."""
    invited = [p["name"] for p in participants] or ["north"]
    spec = {
        "training": "digits",
        "round": number,
        "invited": [n if re.fullmatch("[a-z][-a-z0-9]*", n) else "north" for n in invited],
        **status.pop("spec", {}),
    }
    model = {"round": number, "path": f"digits-u/global/{number}/1/model.safetensors"}
    status = {
        "phase": "Published",
        "startedAt": moment(begin),
        "publishedAt": moment(begin + 30),
        "aggregation": {"state": "Reported", "startedAt": moment(begin + 25), "seconds": 4.0},
        "globalModel": {**model, "digest": f"sha256:{number:064x}"},
        "durations": {"Training": 25.0, "Aggregating": 5.0},
        "participants": list(participants),
        **status,
    }
    metadata = {"name": record_name("digits", number), "uid": "r", "resourceVersion": "1"}
    return Record.from_object({"metadata": metadata, "spec": spec, "status": status})


def accepted(name: str, *, begin: float = 0.0, **values: Any) -> dict[str, Any]:
    """Ready 5 s after the round, which begins at `begin`, and at work for 12.5 s."""
    return {
        "name": name,
        "state": "Accepted",
        "startedAt": moment(begin + 5),
        "seconds": 12.5,
        "samples": 100,
        "weight": 0.5,
        "digest": DIGEST,
        **values,
    }


def failed(name: str, reason: str = "ScriptFailed", message: str = "it broke") -> dict[str, Any]:
    return {"name": name, "state": "Failed", "attempt": 2, "failures": 2} | {
        "reason": reason,
        "message": message,
    }


@dataclass
class Page(HTMLParser):
    """A page as a browser reads it: elements, tables by id, and what is embedded."""

    text: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    scripts: list[str] = field(default_factory=list)
    words: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._table: list[list[str]] | None = None
        self._inside: str | None = None
        self._cell = False
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        if tag == "table":
            self._table = self.tables.setdefault(str(given.get("id")), [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table:
            self._table[-1].append("")
            self._cell = True
        elif tag == "data" and self._table and self._table[-1]:
            # The exact figure stands for the shortened one that is shown.
            self._table[-1][-1] = str(given["value"])
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = None
        self._cell = self._cell and tag not in ("td", "th")
        if tag == "table":
            self._table = None

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.scripts.append(data)
        elif self._table and self._cell and self._inside != "data":
            self._table[-1][-1] += data
        elif not self._cell:
            self.words += data

    @property
    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            next(s for s in self.scripts if s.startswith('{"rounds"'))
        )
        return found
