"""The history of a training, drawn by matplotlib."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedoperator.local.folder import Refused
from fedoperator.notebook.rounds import Round

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def history(rounds: Sequence[Round], metrics: Sequence[str], ax: "Axes | None") -> "list[Axes]":
    """An axes per metric, or all in `ax`; raises Refused if a metric is not there."""
    try:
        from matplotlib import pyplot
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise Refused("there is no matplotlib; pip install 'fedtrain[notebook]'") from error

    known = sorted({name for rnd in rounds for name in (*rnd.metrics, *rnd.trained())})
    for name in metrics:
        if name not in known:
            there = f"use {', '.join(known)}" if known else "no round has reported any yet"
            raise Refused(f"{name} is no metric of these rounds; {there}")
    shown = list(metrics) or known
    if ax is not None:
        axes = [ax] * len(shown)
    else:
        width = max(len(shown), 1)
        _, grid = pyplot.subplots(
            1, width, figsize=(5.0 * width, 3.5), squeeze=False, layout="constrained"
        )
        axes = list(grid[0])
    for name, one in zip(shown, axes, strict=False):
        _draw(rounds, name, one, label=name if ax is not None else "")
        one.set_xlabel("round")
        one.set_ylabel("" if ax is not None else name)
        one.xaxis.set_major_locator(MaxNLocator(integer=True))
        one.legend(frameon=False, fontsize="small")
    return axes


def _draw(rounds: Sequence[Round], name: str, ax: "Axes", label: str) -> None:
    """The global model's line and the mean of the trainings that led to it, with their dots."""
    measured = [(r.number, r.metrics[name]) for r in rounds if name in r.metrics]
    means = [(r.number, r.trained()[name]) for r in rounds if name in r.trained()]
    dots = [
        (r.number, p.metrics[name]) for r in rounds for p in r.participants if name in p.metrics
    ]
    for points, style, what in (
        (measured, {"marker": "o", "markersize": 3.0}, "global model"),
        (means, {"linestyle": "--"}, "participants, mean"),
        (dots, {"linestyle": "", "marker": ".", "color": "0.6"}, "participants"),
    ):
        if points:
            numbers, values = zip(*points, strict=True)
            ax.plot(numbers, values, label=f"{label} {what}".strip(), **style)
