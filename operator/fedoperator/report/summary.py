"""The top of the page: how far, how good, why not; of whom, how, and which model it is."""

from collections.abc import Iterator
from html import escape

from fedoperator.api.training import Training
from fedoperator.report import markup
from fedoperator.report.figures import Figures
from fedoperator.report.markup import Code, Exact

_PARAMETERS = 12
"""Of the training, that are shown."""


def html(figures: Figures) -> str:
    """The heading, and a list of terms."""
    training = figures.training
    status = training.status
    terms = "".join(
        f'<div id="{key}"><dt>{escape(term)}</dt><dd>{said}</dd></div>\n'
        for key, term, said in _terms(figures)
    )
    return (
        f"<h1>{escape(training.name)}</h1>\n"
        f'<p class="lede"><strong class="phase {status.phase}">{status.phase}</strong> '
        f"{escape(_lede(training))}</p>\n<dl>{terms}</dl>"
    )


def _lede(training: Training) -> str:
    """`10 of 10 rounds, accuracy 0.9333, 5 participants, FedAvg, 3 min 2 s`."""
    status, spec = training.status, training.spec
    published = status.global_model.round if status.global_model else 0
    words = [f"{published} of {spec.rounds} rounds"]
    words += [status.score.replace("=", " ")] if status.score else []
    words += [_count(len(spec.participants), "participant"), spec.strategy.name]
    if status.started_at and status.finished_at:
        words.append(markup.duration((status.finished_at - status.started_at).total_seconds()))
    return ", ".join(words)


def _terms(figures: Figures) -> Iterator[tuple[str, str, str]]:
    training = figures.training
    status = training.status
    yield "how-far", "How far", _how_far(training)
    of = status.evaluated_round
    term = "How good" if of is None else f"How good, the model of round {of}"
    yield "how-good", term, _how_good(figures)
    if status.phase != "Succeeded" and (status.reason or status.message):
        said = escape(f"{status.reason}: {status.message}" if status.reason else status.message)
        yield "why-not", "Why not further", said
    yield "model", "Model", _model(training)
    yield "who-took-part", "Who took part", _who(figures)
    yield "how", "How", _how(training)
    yield "when", "When", _when(figures)


def _how_far(training: Training) -> str:
    status = training.status
    words = f"{status.phase}, round {status.round} of at most {training.spec.rounds}"
    if status.phase == "Succeeded" and status.message:
        words += f"; {status.message}"
    return escape(words)


def _how_good(figures: Figures) -> str:
    status = figures.training.status
    if not status.metrics:
        return "No global model has been measured yet."
    parts = []
    for name in sorted(status.metrics, key=lambda name: (name != figures.score, name)):
        text = f"{escape(name)} <b>{markup.cell(Exact(status.metrics[name]))}</b>"
        spread = status.spread.get(name)
        if spread is not None and spread.worst.name != spread.best.name:
            ends = (spread.worst, spread.best)
            worst, best = (f"{markup.cell(Exact(e.value))} at {escape(e.name)}" for e in ends)
            text += f" <small>worst {worst}, best {best}</small>"
        parts.append(f"<div>{text}</div>")
    best_known = status.best
    if best_known is not None:
        value = markup.cell(Exact(best_known.value))
        said = f"best so far: {escape(best_known.metric)} {value}, round {best_known.round}"
        parts.append(f"<div><small>{said}</small></div>")
    return "".join(parts)


def _model(training: Training) -> str:
    model = training.status.global_model
    if model is None:
        return "No global model has been published yet."
    parts = [("", model.digest), ("", model.path), ("on the base model ", model.base_model)]
    told = "".join(f"<div>{words}{markup.cell(Code(text))}</div>" for words, text in parts if text)
    return f"of round {model.round}{told}"


def _who(figures: Figures) -> str:
    invited = sum(row.invited for row in figures.rows)
    accepted = sum(row.accepted for row in figures.rows)
    words = [
        _count(len(figures.training.spec.participants), "participant"),
        f"{accepted} of {invited} contributions accepted",
    ]
    last = [r for r in figures.trained if any(p.state == "Accepted" for p in r.status.participants)]
    if last:
        taken = [p for p in last[-1].status.participants if p.state == "Accepted"]
        samples = sum(p.samples or 0 for p in taken)
        words.append(f"{samples} samples from {len(taken)} of them in round {last[-1].spec.round}")
    if figures.training.status.quarantine:
        words.append(f"left out: {figures.training.status.quarantine}")
    return escape("; ".join(words))


def _how(training: Training) -> str:
    spec = training.spec
    chosen = spec.strategy.to_dict()
    given = ", ".join(f"{key} {value}" for key, value in sorted(chosen.items()) if key != "name")
    words = [f"{spec.strategy.name} ({given})" if given else spec.strategy.name]
    words.append(f"weights by {spec.weight.by}")
    words.append(f"quorum of {spec.quorum.minimum}")
    if spec.quorum.deadline:
        words.append(f"deadline {spec.quorum.deadline}")
    if spec.compression is not None:
        words.append(f"updates as {spec.compression.codec}")
    if spec.stop is not None:
        words.append(f"stops by {spec.stop.metric}")
    parameters = [f"{name} {value}" for name, value in sorted(spec.parameters.items())]
    words += [text[:80] for text in parameters[:_PARAMETERS]]
    if len(parameters) > _PARAMETERS:
        words.append(f"and {len(parameters) - _PARAMETERS} parameters more")
    return escape("; ".join(words))


def _when(figures: Figures) -> str:
    status = figures.training.status
    if status.started_at is None:
        return "It has not begun."
    words = [f"from {status.started_at:%Y-%m-%d %H:%M:%S} UTC"]
    if status.finished_at is not None:
        took = markup.duration((status.finished_at - status.started_at).total_seconds())
        day = "" if status.finished_at.date() == status.started_at.date() else "%Y-%m-%d "
        begun = f"{status.started_at:%Y-%m-%d %H:%M:%S}"
        words = [f"{took}, from {begun} to {status.finished_at:{day}%H:%M:%S} UTC"]
    measured = [r.status.measured for r in figures.trained if r.status.measured is not None]
    if measured:
        total = markup.size(sum(m.bytes for m in measured))
        words.append(f"{total} of updates aggregated")
    return escape("; ".join(words))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
