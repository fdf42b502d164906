"""Updates that travel encoded are folded as what they decode to, and as nothing else."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from fedtrain import codecs
from fedtrain.contract import MODEL_FILE

pytestmark = pytest.mark.processes

Make = Callable[..., Any]
NAMES = [f"p{k}" for k in range(6)]
CODECS: dict[str, dict[str, Any]] = {
    "BFloat16": {"name": "BFloat16"},
    "Int8": {"name": "Int8", "block": 64},
    "TopK": {"name": "TopK", "fraction": 0.1, "block": 1024},
}
MODEL = {
    "w": np.zeros((3, 1111), np.float32),
    "b": np.zeros(7, np.float32),
    "empty": np.zeros((0, 2), np.float32),
    "var": np.ones(9, np.float32),
    "steps": np.array(3, np.int64),
}


def encoded(
    document: Mapping[str, Any], update: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """As it travels, and what it means."""
    codec = codecs.codec(document)
    assert codec is not None
    sent, meant = {}, {}
    for name, values in update.items():
        if name in ("var", "steps"):
            sent[name] = meant[name] = values
            continue
        arrays = codec.encode(values.reshape(-1))
        for part, array in zip(codec.parts(values.shape), arrays, strict=True):
            sent[name + part.suffix] = array.reshape(part.shape)
        decoded = codecs.widened(codec.decode(arrays, values.size))
        meant[name] = decoded.reshape(values.shape)
    return sent, meant


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam", "Median", "Krum"])
@pytest.mark.parametrize("document", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("tile", [1024, 1 << 24])
def test_the_result_is_that_of_the_decoded_updates(
    a_federation: Make,
    a_delta: Make,
    monkeypatch: pytest.MonkeyPatch,
    document: dict[str, Any],
    strategy: str,
    tile: int,
) -> None:
    for module in ("digest", "tensorfile", "aggregation.units", "aggregation.hashing"):
        monkeypatch.setattr(f"fedtrain.{module}.TILE_BYTES", tile)
    monkeypatch.setattr("fedtrain.aggregation.round.PIECE", 1024)
    travelled, plain = (a_federation(MODEL, var="buffer") for _ in range(2))
    for k, name in enumerate(NAMES):
        sent, meant = encoded(document, a_delta(k, MODEL))
        travelled.with_update(name, sent, samples=k + 1, codec=document)
        plain.with_update(name, meant, samples=k + 1)
    said = {"strategy": {"name": strategy}}
    travelled.aggregate(threads=2, codec=document, **said)
    plain.aggregate(threads=1, **said)
    first, second = (one.root / "global/1/1" / MODEL_FILE for one in (travelled, plain))
    assert first.read_bytes() == second.read_bytes()


def test_an_update_of_another_encoding_is_refused_by_name(
    a_federation: Make, a_delta: Make
) -> None:
    federation = a_federation(MODEL, var="buffer")
    for name, document in zip("abc", CODECS.values(), strict=True):
        sent, _ = encoded(document, a_delta(1, MODEL))
        federation.with_update(name, sent, codec=document)
    federation.with_update("d", a_delta(1, MODEL))
    message = federation.aggregate(codec=CODECS["Int8"])
    verdicts = [federation.verdict_on(name, message) for name in "abcd"]
    assert verdicts == ["CodecMismatch", "accepted", "CodecMismatch", "CodecMismatch"]


def test_what_no_encoder_makes_is_refused_and_changes_no_byte(
    a_federation: Make, a_delta: Make
) -> None:
    document = CODECS["Int8"]
    federation = a_federation(MODEL, var="buffer")
    sent, _ = encoded(document, a_delta(1, MODEL))
    federation.with_update("a", sent, codec=document)
    federation.aggregate(codec=document)
    for name, scale in (("b", np.nan), ("c", 3e38)):
        broken = {**sent, "w:scales": np.full_like(sent["w:scales"], scale)}
        broken["w"] = np.ones_like(sent["w"])
        federation.with_update(name, broken, codec=document)
    message = federation.aggregate(codec=document, output="global/1/2")
    assert federation.verdict_on("b", message) == "EncodingInvalid"
    assert federation.verdict_on("c", message) == "TooLarge"
    first, second = (federation.root / f"global/1/{n}" / MODEL_FILE for n in (1, 2))
    assert first.read_bytes() == second.read_bytes()


def test_a_codec_that_is_not_there_breaks_the_contract(a_federation: Make, a_delta: Make) -> None:
    ended = a_federation().with_update("a", a_delta(1)).run(codec={"name": "Morse"})
    assert (ended.code, ended.message.reason) == (64, "CodecUnknown")
