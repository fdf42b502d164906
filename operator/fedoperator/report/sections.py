"""The parts of the page below its top: a plot, and under it a table of the same figures."""

from collections.abc import Iterator, Sequence
from html import escape

from fedoperator.api.round import Record
from fedoperator.report import curves, losses, markup, timing
from fedoperator.report.curves import Curve, Extreme
from fedoperator.report.figures import ROUNDS, Figures
from fedoperator.report.markup import Cell, Code, Exact, Raw

_COLUMNS = 8
"""Participants with a column of their own; of more the least and the greatest are shown."""


def good(figures: Figures) -> str:
    """Plots of all metrics."""
    if not figures.curves:
        return markup.note("No round has measured anything yet.")
    plots = "\n".join(_plot(one, figures.trained) for one in figures.curves)
    left_out = figures.metrics_left_out
    more = f"{left_out} more metrics are left out; the first {curves.MOST} are drawn."
    return f'<div class="plots">{plots}</div>' + markup.note(more if left_out else "")


def updates(figures: Figures) -> str:
    """Plots of what inspection measured; empty if the records have nothing of it."""
    plots = "\n".join(_plot(one, figures.trained) for one in figures.updates)
    return f'<div class="plots">{plots}</div>' if plots else ""


def _plot(one: Curve, records: Sequence[Record]) -> str:
    drawn = f"Drawn are {len(one.own)} participants, those that are last the least and the greatest"
    more = f"{drawn}; {one.left_out} more are within the band." if one.left_out else ""
    return (
        f'<figure class="curve" data-curve="{escape(one.key)}"><figcaption>'
        f"<h3>{escape(one.title)}</h3><p>{escape(one.subtitle)}</p></figcaption>"
        f'<div class="plot"></div>{markup.note(more)}'
        f"{markup.folded('The same figures', _curve_table(one, records))}</figure>"
    )


def _curve_table(one: Curve, records: Sequence[Record]) -> str:
    heads = ["round#", f"{one.centre_name}#"]
    each = len(one.own) if len(one.own) <= _COLUMNS and not one.left_out else 0
    ends = not each and any(one.least)
    heads += [f"{name}#" for name in one.own] if each else []
    heads += ["least#", "of", "greatest#", "of"] if ends else []
    rows: list[list[Cell]] = []
    for index, record in enumerate(records):
        row: list[Cell] = [record.spec.round, Exact(one.centre[index])]
        if each:
            row += [Exact(values[index]) for values in one.own.values()]
        elif ends:
            row += [*_end(one.least[index]), *_end(one.greatest[index])]
        rows.append(row)
    return markup.table(f"table-{one.key}", f"{one.title}, by round", heads, rows)


def _end(extreme: Extreme | None) -> tuple[Cell, Cell]:
    return (None, None) if extreme is None else (Exact(extreme.value), extreme.name)


def time(figures: Figures) -> str:
    """The table under the Gantt chart of all rounds."""
    spent = [
        {span.phase: span.seconds for span in timing.spans(record)} for record in figures.records
    ]
    phases = [phase for phase in timing.PHASES if any(phase in each for each in spent)]
    heads = ["round#", "began (UTC)", *(f"{phase}, s#" for phase in phases)]
    heads += ["to the model, s#", "accepted", "misses#", "bytes read#", "peak memory#"]
    accelerated = any(record.status.accelerators for record in figures.records)
    heads += ["accelerators held, s#", "used, s#"] if accelerated else []
    rows = []
    for record, each in zip(figures.records, spent, strict=True):
        seconds = [_seconds(each.get(phase)) for phase in phases]
        row = _time_row(record, seconds)
        rows.append(row + _accelerators(record) if accelerated else row)
    return markup.table("table-time", "Seconds of each round by phase", heads, rows)


def _time_row(record: Record, seconds: Sequence[Cell]) -> list[Cell]:
    status = record.status
    measured = status.measured
    accepted = sum(p.state == "Accepted" for p in status.participants)
    return [
        record.spec.round,
        f"{status.started_at:%Y-%m-%d %H:%M:%S}" if status.started_at else None,
        *seconds,
        _seconds(timing.since(record, status.published_at)),
        f"{accepted}/{len(status.participants)}" if status.participants else "",
        status.misses or None,
        _bytes(measured.bytes) if measured else None,
        _bytes(measured.peak_memory) if measured else None,
    ]


def _accelerators(record: Record) -> list[Cell]:
    known = record.status.accelerators
    return [None, None] if known is None else [_seconds(known.held), _seconds(known.used)]


def _bytes(count: int) -> Cell:
    return Raw(f'<data value="{count}">{markup.size(count)}</data>')


def _seconds(value: float | None) -> Cell:
    return None if value is None else Raw(f'<data value="{value:.3f}">{value:.1f}</data>')


def who(figures: Figures) -> str:
    """A row for each participant, with a strip of its rounds."""
    heads = ["participant", "rounds", "accepted", "lost#", "failed attempts#", "samples#"]
    heads += ["weight, mean#", "seconds, mean#"]
    heads += [f"{figures.score}, last#"] if figures.score else []
    rows: list[list[Cell]] = []
    for index, row in enumerate(figures.rows):
        cells: list[Cell] = [
            row.name,
            Raw(f'<span class="strip" data-strip="{index}"></span>'),
            f"{row.accepted}/{row.invited}",
            row.lost or None,
            row.retried or None,
            row.samples,
            Exact(row.weight),
            Exact(row.seconds),
        ]
        rows.append(cells + ([Exact(row.measured)] if figures.score else []))
    said = (
        "Samples are those of the last accepted round, weights and seconds means over accepted ones"
    )
    score = f"; {figures.score} is that of the last global model measured there"
    notes = f"{said}{score if figures.score else ''}."
    legend = '<div class="legend" id="strip-legend"></div>'
    return legend + markup.table(
        "table-who", "Everyone who takes part, or took part", heads, rows, notes
    )


def dropped(figures: Figures) -> str:
    """Who was dropped and why."""
    if not figures.losses:
        return markup.note(
            "Nobody: every update that was asked for is part of a global model so far."
        )
    heads = ["participant", "what", "rounds", "times#", "reason", "in the last of them"]
    rows: list[list[Cell]] = [
        [one.name, one.what, losses.ranges(one.rounds), len(one.rounds), one.reason, one.said]
        for one in figures.losses[: losses.MOST]
    ]
    left_out = len(figures.losses) - len(rows)
    more = f" {left_out} rows more are left out, those with the fewest rounds." if left_out else ""
    notes = f"Retried: an attempt failed, a later one was not.{more}"
    return markup.table("table-dropped", "Losses by participant and reason", heads, rows, notes)


def lineage(figures: Figures) -> str:
    """Which model came of which."""
    heads = ["round#", "model", "made of", "accepted", "path on the exchange"]
    notes = (
        "A model is made of the one before it and of the accepted updates; the digests of those "
    )
    notes += "are in the round's own table."
    rows = list(_lineage_rows(figures.records))
    return markup.table("table-lineage", "Digests of the global models", heads, rows, notes)


def _lineage_rows(records: Sequence[Record]) -> Iterator[list[Cell]]:
    for record in records:
        number, model = record.spec.round, record.status.global_model
        if model is None:
            continue
        accepted = sum(p.state == "Accepted" for p in record.status.participants)
        yield [
            number,
            Code(model.digest),
            f"round {number - 1} + {accepted} updates" if number else "the beginning",
            f"{accepted}/{len(record.status.participants)}" if record.status.participants else "",
            Code(model.path),
        ]


def left_out(figures: Figures) -> str:
    """What the page does not hold, in one sentence, or nothing."""
    parts = []
    if figures.earlier:
        parts.append(f"{figures.earlier} earlier rounds (a page holds the last {ROUNDS})")
    first = figures.records[0].spec.round if figures.records else 0
    if first > 1 and not figures.earlier:
        parts.append(f"rounds before {first}, whose records are deleted (spec.history)")
    if any(len(r.status.participants) > figures.contributions for r in figures.records):
        parts.append(
            f"of each round all contributions but {figures.contributions}: those that were not "
            "accepted, then the slowest"
        )
    return markup.note(f"Left out: {'; '.join(parts)}." if parts else "")
