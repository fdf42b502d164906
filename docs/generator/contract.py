"""What the operator and the processes it starts agree on, from the module that both import."""

import ast
import dataclasses
import enum
import inspect
import re
from collections.abc import Iterator
from typing import Any

from docs.generator.text import HEADER, cell, code, flowing, plain, table
from fedtrain import contract

INTRODUCTION = f"""{HEADER}
# The contract

What the operator tells the processes that it starts, and how they answer. A script needs none of
it: `fedtrain.rounds` and `fedtrain.launch` speak it. Whoever writes another aggregator or another
kind of participant does. The source is `trainer/fedtrain/contract.py`, standard library only.
"""
TASKS = (
    contract.ParticipantTask,
    contract.PrepareTask,
    contract.ImportTask,
    contract.AggregateTask,
)


def page() -> str:
    source = inspect.getsource(contract)
    said = dict(_constants(ast.parse(source)))
    environment = [
        [code(getattr(contract, name)), cell(text)]
        for name, text in said.items()
        if name.endswith("_ENV") and isinstance(getattr(contract, name), str)
    ]
    others = [
        [code(name), code(getattr(contract, name)), cell(text)]
        for name, text in said.items()
        if not name.endswith("_ENV") and isinstance(getattr(contract, name), str | int | float)
    ]
    reserved = ", ".join(
        code(name)
        for name in (
            *(f"{p}*" for p in contract.RESERVED_ENV_PREFIXES),
            *sorted(contract.RESERVED_ENV),
        )
    )
    return "\n".join(
        [
            INTRODUCTION,
            f"## Paths\n\n{_paths()}",
            f"## Environment\n\n{table(['variable', 'what it holds'], environment)}",
            f"`trainer.env` may not set {reserved}.\n",
            f"## Exit codes\n\n{table(['code', 'name', 'what it says'], _exits(source))}",
            f"## Constants\n\n{table(['name', 'value', 'what it is'], others)}",
            "## Tasks\n\n`FEDTRAIN_TASK` is a JSON document: `kind` and the fields of that kind. "
            f"A role is {', '.join(map(code, contract.Role))}.\n",
            *map(_record, TASKS),
            "## Receipt\n\n`receipt.json`, beside the files that it speaks for.\n",
            _record(contract.Receipt),
            "## Termination message\n\nAt most 3 KiB of JSON in `/dev/termination-log`.\n",
            _record(contract.Message),
        ]
    )


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(name, docstring or "") of each constant."""
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            text = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = str(following.value.value)
            if node.targets[0].id.isupper() and not node.targets[0].id.startswith("_"):
                yield node.targets[0].id, text


def _paths() -> str:
    """The module's own drawing of them, with the words around it."""
    text = inspect.getdoc(contract) or ""
    before, _, after = text.partition(":\n\n")
    drawing, _, rest = after.partition("\n\nTexts that travel")
    said = plain(flowing(before.partition("\n\n")[2].partition(". ")[2]))
    lines = "\n".join(line.strip() for line in drawing.splitlines())
    return f"{said}:\n\n```text\n{lines}\n```\n\n{plain(flowing('Texts that travel' + rest))}\n"


def _exits(source: str) -> list[list[str]]:
    (node,) = (
        n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == "Exit"
    )
    said = {}
    for member, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(member, ast.Assign) and isinstance(member.targets[0], ast.Name):
            text: object = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = following.value.value
            said[member.targets[0].id] = str(text)
    return [[code(e.value), code(e.name), cell(said[e.name] or "Done.")] for e in contract.Exit]


def _record(kind: Any) -> str:
    fields = dataclasses.fields(kind)
    told, said = _parted(flowing(kind.__doc__), [field.name for field in fields])
    rows = [
        [code(f.name), code(_type(f.type)), _default(f), cell(said.get(f.name, ""))] for f in fields
    ]
    head = ["field", "type", "default", "what it is"]
    return f"### {kind.__name__}\n\n{plain(told)}\n\n{table(head, rows)}"


def _parted(text: str, names: list[str]) -> tuple[str, dict[str, str]]:
    """A docstring into what is said of the whole, and of each field: "name, other: a sentence."."""
    name = "|".join(names)
    parts = re.split(rf"(?:^|(?<=\.)|(?<=\n))\s*((?:{name})(?:(?:, | and )(?:{name}))*): ", text)
    said: dict[str, str] = {}
    for heard, sentence in zip(parts[1::2], parts[2::2], strict=True):
        for each in re.split(", | and ", heard):
            said[each] = sentence[:1].upper() + sentence[1:].strip()
    return parts[0].strip(), said


def _type(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return re.sub(r"\b(typing|collections\.abc|fedtrain\.contract)\.", "", text)


def _default(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        default = field.default
        return code(str(default) if isinstance(default, enum.Enum) else repr(default))
    made = field.default_factory
    return "" if made is dataclasses.MISSING else code(repr(made()))
