"""Rows in columns: with rich where a terminal shows them, plain where a program reads them."""

import sys
from collections.abc import Sequence

from fedoperator.local import visible


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    heads = [visible.line(head) for head in heads]
    cells = [["" if cell is None else visible.line(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        try:
            return _rich(heads, cells)
        except ImportError:
            pass
    for line in plain(heads, cells):
        print(line)
    return None


def plain(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Left-aligned, two spaces between columns, as kubectl has them."""
    upper = [head.upper() for head in heads]
    widths = [max(len(row[i]) for row in (upper, *cells)) for i in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (upper, *cells)
    ]


def _rich(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    import rich.box
    import rich.console
    import rich.table
    import rich.text

    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(rich.text.Text(head))
    for row in cells:
        table.add_row(*(rich.text.Text(cell) for cell in row))
    rich.console.Console().print(table)
