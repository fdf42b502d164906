"""The changelog's sections: `python -m release.changelog` prints that of this version.

A section is `## 1.2.3 (2026-11-28)`, or `(unreleased)` for the topmost alone. With --released it is
an error if this version's has no date, or if the tag is not this version's.
"""

import argparse
import re
import sys
from pathlib import Path

from fedtrain import contract

ROOT = Path(__file__).parents[1]
HEADING = re.compile(r"^## (\d+\.\d+\.\d+(?:[a-z]+\d+)?) \((unreleased|\d{4}-\d\d-\d\d)\)$")


def sections(text: str) -> dict[str, tuple[str, str]]:
    """Version → (date or "unreleased", what changed), newest first. Raises ValueError."""
    _, *parts = re.split(r"^(?=## )", text, flags=re.M)
    found: dict[str, tuple[str, str]] = {}
    for part in parts:
        heading, _, changes = part.partition("\n")
        match = HEADING.match(heading)
        if match is None:
            raise ValueError(f"{heading!r} is not like '## 1.2.3 (2026-11-28)' or '(unreleased)'")
        if match[1] in found:
            raise ValueError(f"{match[1]} has two sections")
        if match[2] == "unreleased" and found:
            raise ValueError(f"{match[1]} is unreleased, and a newer one is above it")
        if not changes.strip():
            raise ValueError(f"{match[1]} says nothing")
        found[match[1]] = (match[2], changes.strip())
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m release.changelog", description=__doc__)
    parser.add_argument("--released", metavar="TAG", help="the tag that is released, v1.2.3")
    given = parser.parse_args(arguments)
    try:
        found = sections((ROOT / "CHANGELOG.md").read_text())
    except ValueError as error:
        print(f"CHANGELOG.md: {error}", file=sys.stderr)
        return 1
    if contract.VERSION not in found:
        print(f"CHANGELOG.md: {contract.VERSION} has no section", file=sys.stderr)
        return 1
    date, changes = found[contract.VERSION]
    if given.released and date == "unreleased":
        print(f"CHANGELOG.md: {contract.VERSION} is unreleased; give it a date", file=sys.stderr)
        return 1
    if given.released and given.released != f"v{contract.VERSION}":
        print(f"the tag {given.released} is not v{contract.VERSION}", file=sys.stderr)
        return 1
    print(changes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
