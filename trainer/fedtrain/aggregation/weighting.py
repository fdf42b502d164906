"""How the accepted updates are put together: decided from what was measured of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedtrain.aggregation.fold import Weighting
from fedtrain.aggregation.report import Report
from fedtrain.aggregation.sums import exponent_of
from fedtrain.contract import AggregateTask
from fedtrain.schema import Schema
from fedtrain.strategies import Facts, Needs, Strategy, norm_bound


def must_measure(task: AggregateTask, strategy: Strategy) -> bool:
    """Whether anything has to be known of all updates before the fold."""
    return (
        strategy.needs is not Needs.NOTHING
        or task.norm_bound is not None
        or task.precision == "Exact"
    )


def squares(report: Report, schema: Schema, count: int) -> list[float]:
    """Of each update's parameters: the sum of squares, in the schema's order."""
    totals = [0.0] * count
    for spec in schema.tensors:
        if spec.kind == "frozen":
            continue
        for number, value in enumerate(report.squares[spec.name]):
            totals[number] += value
    return totals


def cosines(report: Report, schema: Schema, count: int) -> list[float | None]:
    """Between each update's parameters and what the round combined, as the fold's samples have it.

    A sample is the first 1,024 values of a unit. None where either is zero.
    """
    totals = np.zeros(2 * count + 1)
    for spec in schema.tensors:
        if spec.name in report.alignment:
            totals += report.alignment[spec.name]
    products, norms = totals[:count], np.sqrt(totals[count:])
    lengths = norms[:count] * norms[count]
    return [
        max(-1.0, min(1.0, float(product / length))) if length > 0 else None
        for product, length in zip(products, lengths, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Of the members, in their order: n_k / n, and lengths as their receipts say.

    measured: of all shards, None if nothing had to be.
    """

    weights: Sequence[float]
    lengths: Sequence[float]
    measured: Report | None


def weighting(task: AggregateTask, strategy: Strategy, schema: Schema, known: Known) -> Weighting:
    """Raises ValueError, in one sentence, for what does not go together."""
    _check(task, strategy)
    shares, measured = np.array(known.weights, np.float64), known.measured
    products = scales = None
    if measured is not None:
        if task.norm_bound is not None:
            norms = np.sqrt(np.array(squares(measured, schema, len(shares))))
            scales = norm_bound.scales(norms, task.norm_bound)
        if Needs.PRODUCTS in strategy.needs:
            products = _products(measured, schema, scales)
    facts = Facts(
        weights=shares,
        products=products,
        lengths=np.array(known.lengths, np.float64) if strategy.counts_steps else None,
        population=task.population,
    )
    coefficients = strategy.coefficients(facts)
    return Weighting(
        coefficients=coefficients,
        buffers=strategy.buffer_weights(facts, coefficients),
        slots=strategy.slot_sums(facts),
        scales=scales,
        exponents={} if measured is None else _exponents(measured, schema, scales),
    )


def _check(task: AggregateTask, strategy: Strategy) -> None:
    if not strategy.counts_steps:
        return
    if task.norm_bound is not None:
        raise ValueError(
            f"strategy.normBound: {strategy.name} scales an update by what its receipt says after "
            "any bound; leave it out"
        )
    if task.precision == "Exact":
        raise ValueError(
            f"aggregation.precision: Exact has room for weights that sum to 1, and those of "
            f"{strategy.name} may be more; use Float32 or Float64"
        )


def _products(
    measured: Report, schema: Schema, scales: "np.ndarray[tuple[int], np.dtype[np.float32]] | None"
) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Over all parameters, summed in the schema's order; of the scaled deltas."""
    parts = [
        measured.products[name]
        for name in ("", *(spec.name for spec in schema.tensors))
        if name in measured.products
    ]
    total = np.zeros_like(parts[0])
    for part in parts:
        total += part
    if scales is not None:
        factors = np.ones(len(total))
        factors[: len(scales)] = scales
        total *= factors[:, None] * factors
    return total


def _exponents(
    measured: Report, schema: Schema, scales: "np.ndarray[tuple[int], np.dtype[np.float32]] | None"
) -> dict[str, int]:
    """Of each floating tensor, for the exact sum; the center is summed, too, and never scaled."""
    exponents = {}
    for spec in schema.tensors:
        if spec.kind not in ("integer", "frozen"):
            largest = np.array(measured.largest[spec.name], np.float32)
            if scales is not None and spec.kind == "parameter":
                largest[: len(scales)] *= scales
            exponents[spec.name] = exponent_of(float(largest.max(initial=0.0)))
    return exponents
