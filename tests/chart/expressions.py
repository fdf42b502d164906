"""What the dashboards ask Prometheus: every panel's expression, its variables filled in.

python tests/chart/expressions.py NAMESPACE TRAINING     # one a line, to ask a Prometheus each
"""

import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

FOLDER = pathlib.Path(__file__).parents[2] / "charts/fedtrain/dashboards"
PAGES = (FOLDER / "training.json", FOLDER / "operator.json")


class Expression(NamedTuple):
    """One query of a panel, or of the annotations. text: PromQL that any Prometheus takes."""

    panel: str
    text: str
    legend: str

    @property
    def metrics(self) -> set[str]:
        """The names of the series that it reads."""
        without_labels = re.sub(r"\{[^}]*\}|\((?:[a-z]+(?:, )?)*\)", "", self.text)
        return set(re.findall(r"\b(?:fedtrain|process)_[a-z_]+", without_labels))

    @property
    def labels(self) -> set[str]:
        """The labels that its legend shows."""
        return set(re.findall(r"\{\{(\w+)\}\}", self.legend))


def expressions(
    namespace: str, training: str, interval: str = "1m", pages: tuple[pathlib.Path, ...] = PAGES
) -> Iterator[Expression]:
    """Of every panel, in the order of the pages, for one training."""
    values = {
        "$namespace": namespace,
        "$training": training,
        "$metric": ".*",
        "$__rate_interval": interval,
    }
    for title, text, legend in (found for page in pages for found in _asked(page)):
        for name, value in values.items():
            text = text.replace(name, value)
        assert "$" not in text, f"{title}: {text} has a variable that nobody fills in"
        yield Expression(title, text, legend)


def _asked(page: pathlib.Path) -> Iterator[tuple[str, str, str]]:
    document = json.loads(page.read_text())
    for panel in document["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]
    for annotation in document.get("annotations", {}).get("list", ()):
        yield annotation["name"], annotation["expr"], ""


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for expression in expressions(*sys.argv[1:]):
        print(expression.text)
