"""Whatever one participant sends can cost that participant its round, and nothing else."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtrain.strategies import STRATEGIES as KNOWN
from tests.aggregation.hostile import CORPUS
from tests.aggregation.hostile.codecs import ENCODED
from tests.aggregation.hostile.forgery import Case
from tests.aggregation.hostile.places import DEVICES
from tests.aggregation.hostile.receipts import UNCOUNTED
from tests.aggregation.hostile.rounds import (
    STRATEGIES,
    Attack,
    a_round,
    forged,
    published,
    removed,
)
from tests.aggregation.hostile.sound import SOUND
from tests.aggregation.hostile.values import VALUES, everywhere

pytestmark = pytest.mark.processes

Make = Callable[..., Any]
MIB = 1024 * 1024
CROWD = 48
"""Hostile participants of one round of the matrix."""

CROWDS = tuple(CORPUS[at : at + CROWD] for at in range(0, len(CORPUS), CROWD))
KINDS = ({"name": "FedAdam"}, {"name": "Median"}, {"name": "Krum"})
"""Of one pass with a server's state, of all updates' pieces at once, of two passes."""

NAMES = [str(strategy["name"]) for strategy in STRATEGIES]
COUNTS_STEPS = {name: kind.counts_steps for name, kind in KNOWN.items()}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fedtrain-hostile-"))
    yield folder
    removed(folder)


@pytest.fixture(scope="module")
def without_the_hostile(place: Path) -> Callable[[Mapping[str, Any]], Mapping[str, bytes]]:
    """What the honest alone make of the model, by strategy, bytes of each file."""
    attack = Attack.of((), place / "honest")
    known: dict[str, Mapping[str, bytes]] = {}

    def reference(strategy: Mapping[str, Any]) -> Mapping[str, bytes]:
        name = strategy["name"]
        if name not in known:
            known[name] = attack.aggregate(strategy=strategy).tensors
        return known[name]

    return reference


@pytest.fixture(scope="module")
def attacks(place: Path) -> Iterator[Callable[[int], Attack]]:
    """The rounds of the matrix, each made once, for all strategies."""
    known: dict[int, Attack] = {}

    def attack(number: int) -> Attack:
        if number not in known:
            known[number] = Attack.of(CROWDS[number], place / f"crowd-{number}", number)
        return known[number]

    yield attack
    for one in known.values():
        removed(one.federation.root)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=NAMES)
@pytest.mark.parametrize(("codec", "cases"), ENCODED, ids=[one["name"] for one, _ in ENCODED])
def test_under_every_strategy_each_that_is_badly_encoded_is_refused_and_changes_no_byte(
    place: Path, codec: Mapping[str, Any], cases: tuple[Case, ...], strategy: Mapping[str, Any]
) -> None:
    name = f"{codec['name']}-{strategy['name']}"
    said = {"codec": codec, "strategy": strategy}
    attack = Attack.of(cases, place / name, codec=codec)
    outcome = attack.aggregate(**said)
    assert attack.wrong(outcome) == []
    assert (
        outcome.tensors == Attack.of((), place / f"{name}-", codec=codec).aggregate(**said).tensors
    )
    assert outcome.seconds < 10


def test_the_corpus_is_large_and_says_everything_once() -> None:
    sentences = [case.what for case in (*CORPUS, *DEVICES)]
    assert len(set(sentences)) == len(sentences) >= 200


@pytest.mark.parametrize("strategy", STRATEGIES, ids=NAMES)
@pytest.mark.parametrize("number", range(len(CROWDS)))
def test_under_every_strategy_each_is_refused_for_its_reason_and_changes_no_byte(
    attacks: Callable[[int], Attack],
    without_the_hostile: Make,
    number: int,
    strategy: Mapping[str, Any],
) -> None:
    attack = attacks(number)
    outcome = attack.aggregate(strategy=strategy, threads=1 + number % 2)
    assert attack.wrong(outcome) == []
    assert outcome.tensors == without_the_hostile(strategy)
    assert outcome.seconds < 10


@pytest.mark.parametrize(
    ("number", "case"), [*enumerate(VALUES)], ids=[case.what for case in VALUES]
)
def test_alone_among_the_honest_what_only_a_pass_over_the_values_finds_is_refused_too(
    place: Path, without_the_hostile: Make, number: int, case: Case
) -> None:
    strategy = STRATEGIES[number % len(STRATEGIES)]
    attack = Attack.of([case], place / f"alone-{number}", number)
    outcome = attack.aggregate(strategy=strategy)
    assert attack.wrong(outcome) == []
    assert outcome.tensors == without_the_hostile(strategy)
    assert outcome.seconds < 3


@pytest.mark.parametrize("strategy", [name for name in NAMES if COUNTS_STEPS[name]])
def test_whoever_does_not_say_how_far_it_went_or_lies_beyond_measure_is_refused(
    place: Path, without_the_hostile: Make, strategy: str
) -> None:
    attack = Attack.of(UNCOUNTED, place / f"uncounted-{strategy}")
    outcome = attack.aggregate(strategy={"name": strategy})
    assert attack.wrong(outcome) == []
    assert outcome.tensors == without_the_hostile({"name": strategy})


HEAVY = [case for case in CORPUS if case.heavy]


@pytest.mark.parametrize("case", HEAVY, ids=[case.what for case in HEAVY])
def test_what_is_large_costs_the_process_neither_memory_nor_time(
    place: Path, without_the_hostile: Make, case: Case
) -> None:
    federation = a_round(place / f"heavy-{HEAVY.index(case)}")
    case.spoil(forged(federation, "m"))
    ended = federation.run(threads=1)
    assert ended.code == 0, ended.output
    assert federation.verdict_on("m", ended.message) in case.reasons
    assert ended.message.result["details"]["m"]
    assert ended.message.result["seconds"] < 3
    assert ended.message.result["peakMemory"] < 150 * MIB
    assert published(federation.root, 1) == without_the_hostile({"name": "FedAvg"})
    removed(federation.root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
@pytest.mark.parametrize("case", DEVICES, ids=[case.what for case in DEVICES])
def test_a_device_is_no_update(place: Path, without_the_hostile: Make, case: Case) -> None:
    try:
        attack = Attack.of([case], place / f"device-{DEVICES.index(case)}")
    except PermissionError:
        pytest.skip("this machine lets nobody make devices")
    outcome = attack.aggregate()
    assert attack.wrong(outcome) == []
    assert outcome.tensors == without_the_hostile({"name": "FedAvg"})


@pytest.mark.parametrize("strategy", KINDS, ids=[one["name"] for one in KINDS])
def test_what_looks_odd_but_is_sound_counts_like_the_same_values_written_plainly(
    place: Path, tensors: Any, strategy: Mapping[str, Any]
) -> None:
    odd = a_round(place / f"odd-{strategy['name']}")
    plain = a_round(place / f"plain-{strategy['name']}")
    for k, (_, spoil) in enumerate(SOUND.items()):
        forgery = forged(odd, f"m-{k}")
        spoil(forgery)
        plain.with_update(f"m-{k}", tensors.read(forgery.update), samples=1000)
    message = odd.aggregate(strategy=strategy)
    verdicts = {what: odd.verdict_on(f"m-{k}", message) for k, what in enumerate(SOUND)}
    assert verdicts == dict.fromkeys(SOUND, "accepted")
    plain.aggregate(strategy=strategy)
    assert published(odd.root, 1) == published(plain.root, 1)


LARGEST = 2.0**56
"""Of a value that passes: see fedtrain.aggregation.soundness."""


@pytest.mark.parametrize("strategy", STRATEGIES, ids=NAMES)
@pytest.mark.parametrize("precision", ["Float32", "Exact"])
def test_the_largest_updates_that_pass_never_make_a_model_that_is_not_finite(
    place: Path, precision: str, strategy: Mapping[str, Any]
) -> None:
    if precision == "Exact" and COUNTS_STEPS[strategy["name"]]:
        precision = "Float64"  # Exact is refused
    federation = a_round(place / f"largest-{strategy['name']}-{precision}")
    for k in range(9):
        everywhere(LARGEST if k % 3 else -LARGEST)(forged(federation, f"m-{k}"))
    message = federation.aggregate(strategy=strategy, precision=precision)
    assert set(message.result["verdicts"]) == {"."}
    for name, array in federation.result().items():
        if array.dtype.kind == "f":
            assert np.isfinite(array).all()
            assert np.abs(array).max(initial=0) <= 2 * LARGEST, name


@pytest.mark.parametrize("base", [0.0, 2.0**81, float(np.finfo(np.float32).max)])
def test_the_mean_of_the_largest_is_the_largest_and_moves_no_model_of_its_size(
    a_federation: Make, base: float
) -> None:
    federation = a_federation({"w": np.full(3, base, np.float32)}, w="parameter")
    for k in range(40):
        federation.with_update(f"p{k}", {"w": np.full(3, LARGEST, np.float32)}, samples=1 + k % 7)
    federation.aggregate()
    assert federation.result()["w"] == pytest.approx(np.full(3, base or LARGEST), rel=1e-6)


def test_what_a_participant_leaves_in_its_folder_never_fails_an_aggregation(
    place: Path, without_the_hostile: Make
) -> None:
    federation = a_round(place / "deep")
    folder = federation.root / "updates/hotel/0"
    folder.mkdir(parents=True)
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    ended = federation.run()
    assert ended.code == 0, ended.output
    assert os.listdir(folder) == []
    assert published(federation.root, 1) == without_the_hostile({"name": "FedAvg"})


def test_the_sentence_says_what_is_and_what_should_be(a_federation: Make) -> None:
    model = {"w": np.zeros((2, 2), np.float32), "v": np.zeros(3, np.float32)}
    federation = a_federation(model)
    federation.with_update("a", model)
    federation.with_update("b", {**model, "w": np.zeros((2, 2), np.float16)})
    federation.with_update("c", {**model, "w": np.zeros((4,), np.float32)})
    federation.with_update("d", {"w": model["w"]})
    federation.with_update("e", {**model, "x": model["v"]})
    details = federation.aggregate().result["details"]
    assert details == {
        "b": "tensor 'w' is F16 [2, 2], not F32 [2, 2]",
        "c": "tensor 'w' is F32 [4], not F32 [2, 2]",
        "d": "tensor 'v' is missing",
        "e": "tensor 'x' is not part of the model",
    }
