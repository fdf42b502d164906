"""A file may change while it is read: then it counts as it was signed, or not at all."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedtrain.contract import UPDATE_FILE, global_folder
from tests.aggregation.hostile.forgery import Forgery
from tests.aggregation.hostile.races import CHANGES, at_read
from tests.aggregation.hostile.rounds import (
    a_round,
    forged,
    published,
    removed,
    unprivileged,
)
from tests.aggregation.hostile.values import holds

pytestmark = pytest.mark.processes

Make = Callable[..., Any]
PASSES: tuple[Mapping[str, Any], ...] = ({"name": "FedAdam"}, {"name": "Median"}, {"name": "Krum"})
"""Strategies of one pass over the updates, of one with all of them at once, and of two."""

REASONS = {
    "DigestMismatch",
    "FileForbidden",
    "FileMissing",
    "FileTruncated",
    "HeaderInvalid",
    "NotARegularFile",
    "NotBoolean",
    "NotFinite",
    "ReceiptMismatch",
    "ReceiptMissing",
    "SizeMismatch",
    "TooLarge",
}
MOMENTS = 4
"""Reads at which each change happens, from the first to the last."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    removed(tmp_path)


@pytest.mark.parametrize("strategy", PASSES, ids=[one["name"] for one in PASSES])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_file_that_changes_counts_as_it_was_signed_or_not_at_all(
    place: Path, change: Callable[[Forgery], None], strategy: Mapping[str, Any]
) -> None:
    with_it, without = a_round(place / "with"), a_round(place / "without")
    forgery = forged(with_it, "delta")
    with at_read(0, forgery, change) as reads:
        with_it.aggregate(strategy=strategy)
    without.aggregate(strategy=strategy)
    results = {
        "accepted": published(with_it.root, 1),
        "refused": published(without.root, 1),
    }
    assert reads() >= 8, "the file is read by tensors, and every read was seen"
    verdicts = []
    for k in range(MOMENTS):
        federation = a_round(place / f"moment-{k}")
        forgery = forged(federation, "delta")
        moment = 1 + (reads() - 1) * k // (MOMENTS - 1)
        with at_read(moment, forgery, change), unprivileged():
            message = federation.aggregate(strategy=strategy)
        verdicts.append(federation.verdict_on("delta", message))
        assert verdicts[-1] in {"accepted", *REASONS}
        expected = results["accepted" if verdicts[-1] == "accepted" else "refused"]
        assert published(federation.root, 1) == expected, verdicts[-1]
    if change in (CHANGES["its bits flip"], CHANGES["it becomes empty"]):
        assert "accepted" not in verdicts[:-1]


def test_many_that_are_unsound_cost_hardly_more_reads_than_one(place: Path) -> None:
    """Else a few could keep the aggregator reading for a day: each, a pass of its own."""
    federation = a_round(place / "many")
    tensors = ("bn.running_var", "conv.weight", "fc.bias", "fc.weight", "left", "right")
    for k, tensor in enumerate(tensors):
        holds(tensor, float("nan"), -1)(forged(federation, f"m-{k}"))
    honest = federation.folder_of("alpha")
    size, read, preadv = (honest / UPDATE_FILE).stat().st_size, [0], os.preadv

    def counted(fd: int, *rest: Any) -> int:
        count = preadv(fd, *rest)
        if os.readlink(f"/proc/self/fd/{fd}") == str(honest / UPDATE_FILE):
            read[0] += count
        return count

    os.preadv = counted
    try:
        message = federation.aggregate(threads=1)
    finally:
        os.preadv = preadv
    verdicts = [federation.verdict_on(f"m-{k}", message) for k in range(len(tensors))]
    assert verdicts == ["NotFinite"] * len(tensors)
    assert 0 < read[0] <= 3 * size


def test_a_round_whose_every_update_goes_away_names_each_of_them(place: Path) -> None:
    federation = a_round(place / "nobody")
    forgery = forged(federation, "delta")

    def all_go_away(_: Forgery) -> None:
        for name, _attempt in federation.candidates:
            os.truncate(federation.folder_of(name) / UPDATE_FILE, 0)

    from fedtrain.aggregation.verdicts import VerdictsError

    with (
        at_read(1, forgery, all_go_away),
        pytest.raises(VerdictsError) as refused,
    ):
        federation.aggregate(minimum=1)
    assert refused.value.reason == "TooFewAccepted"
    assert "." not in refused.value.result["verdicts"]
    assert len(refused.value.result["verdicts"]) == len(federation.candidates)
    assert os.listdir(federation.root / global_folder(1, 1).rsplit("/", 1)[0]) == []
