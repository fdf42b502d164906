"""The values of the chart, explained once: `python -m manifests.values`.

What stands above a field in values.yaml is its description in values.schema.json and its line in
the table of the chart's README. A field is a line of its own there; what is free is written in
one line, as `labels: {a: b}`.
"""

import json
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

CHART = pathlib.Path(__file__).parent.parent / "charts" / "fedtrain"
VALUES, SCHEMA, README = (
    CHART / name for name in ("values.yaml", "values.schema.json", "README.md")
)
BEGIN, END = "<!-- values: generated -->\n", "<!-- /values -->\n"

_FIELD = re.compile(r"( *)([A-Za-z]\w*):(?: (.*))?")


@dataclass(frozen=True, slots=True)
class Value:
    """path: of names. default: as it is written; None for an object of fields."""

    path: tuple[str, ...]
    default: str | None
    text: str

    @property
    def name(self) -> str:
        return ".".join(self.path)


def values(text: str) -> Iterator[Value]:
    """Every field of a values.yaml, in its order. Raises ValueError for one without a word."""
    said: list[str] = []
    path: list[str] = []
    for line in text.splitlines():
        comment = re.fullmatch(r" *# ?(.*)", line)
        if comment:
            said.append(comment[1])
            continue
        field = _FIELD.fullmatch(line)
        if field:
            indent, name, default = field.groups()
            path = [*path[: len(indent) // 2], name]
            if not said:
                raise ValueError(f"{'.'.join(path)}: say above it what it is")
            yield Value(tuple(path), default, " ".join(said))
        said = []


def schema(text: str, described: list[Value]) -> str:
    """The same schema with these descriptions. Raises ValueError for a field it does not know."""
    document = json.loads(text)
    for value in described:
        parent, found = {}, document
        for name in value.path:
            parent, found = found, found.get("properties", {}).get(name)
            if found is None:
                raise ValueError(f"{value.name}: is not in values.schema.json")
        rest = {key: rule for key, rule in found.items() if key != "description"}
        parent["properties"][value.path[-1]] = {"description": value.text, **rest}
    return json.dumps(document, indent=2) + "\n"


def readme(text: str, described: list[Value]) -> str:
    """The same page with the table of these values."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "".join(_table(described)) + END + after


def _table(described: list[Value]) -> Iterator[str]:
    yield "\n| value | default | what it is |\n|---|---|---|\n"
    for value in described:
        if value.default is not None:
            text = value.text.replace("|", "\\|")
            yield f"| `{value.name}` | `{value.default}` | {text} |\n"
    yield "\n"


def files() -> dict[pathlib.Path, str]:
    """What the two generated files should hold."""
    described = list(values(VALUES.read_text()))
    return {
        SCHEMA: schema(SCHEMA.read_text(), described),
        README: readme(README.read_text(), described),
    }


def main() -> None:
    for file, content in files().items():
        file.write_text(content)


if __name__ == "__main__":
    main()
