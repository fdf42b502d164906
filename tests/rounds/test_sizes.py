"""Sizes that the operator foretells, against the SDK that writes the files."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import a_spec

from fedoperator.api.aggregation import Compression
from fedoperator.api.strategy import Strategy
from fedoperator.api.training import TrainingSpec
from fedoperator.rounds import sizes
from fedoperator.rounds.sizes import Model, Tensor
from fedtrain import codecs, strategies
from fedtrain.aggregation.server import described
from fedtrain.layout import plan
from fedtrain.schema import Schema, TensorSpec
from fedtrain.tensorfile import encode_header

KINDS = {"F32": st.sampled_from(["parameter", "buffer", "frozen"]), "I64": st.just("integer")}
TENSORS = st.sampled_from(["F32", "F32", "I64"]).flatmap(
    lambda dtype: st.tuples(
        st.just(dtype), st.lists(st.integers(0, 90), max_size=3).map(tuple), KINDS[dtype]
    )
)
COMPRESSIONS = [
    None,
    {"codec": "BFloat16"},
    {"codec": "Int8", "block": 64},
    {"codec": "TopK", "fraction": 0.03, "block": 1024},
]


def spec_of(**changes: Any) -> TrainingSpec:
    return TrainingSpec.model_validate(a_spec(**changes))


def written(tensors: Any) -> int:
    """Bytes of a file that the SDK makes for these (name, dtype, shape)."""
    layout = plan(tensors)
    header = encode_header(layout, {"format": "pt"})
    return len(header) + max((info.end for info in layout), default=0)


@settings(max_examples=60, deadline=None)
@given(
    found=st.lists(TENSORS, min_size=1, max_size=6),
    compression=st.sampled_from(COMPRESSIONS),
    strategy=st.sampled_from(["FedAvg", *sizes.SLOTS]),
)
def test_files_are_as_large_as_the_sdk_makes_them(
    found: list[Any], compression: dict[str, Any] | None, strategy: str
) -> None:
    named = [(f"layer.{n:02d}.weight", *rest) for n, rest in enumerate(found)]
    model = Model(tuple(Tensor(*one) for one in named))
    schema = Schema.of(TensorSpec(name=n, dtype=d, shape=s, kind=k) for n, d, s, k in named)
    spec = spec_of().model_copy(
        update={
            "strategy": Strategy.model_validate({"name": strategy}),
            "compression": None if compression is None else Compression(**compression),
        }
    )
    whole = [(t.name, t.dtype, t.shape) for t in schema.tensors]
    assert sizes.file_bytes(model.tensors) == written(whole)
    assert sizes.schema_bytes(model) == len(schema.to_json())
    own = codecs.codec(None if spec.compression is None else spec.compression.document)
    parts = [(t.name, t.dtype, t.shape) for t in codecs.update_schema(schema, own).tensors]
    assert sizes.update_bytes(model, spec, spec.participants[0]) == written(parts)
    made = strategies.strategy(spec.strategy.document)
    state = described(made.slots, schema.tensors)
    assert sizes.state_bytes(model, spec, 1) == (written(state) if made.slots else 0)


@pytest.mark.parametrize("document", [{}, {"a": 1}, {"a": {"dtype": "F8", "shape": [1]}}])
def test_what_is_no_header_is_refused_or_empty(document: dict[str, Any]) -> None:
    if not document:
        assert sizes.of_header(document, spec_of()).tensors == ()
        return
    with pytest.raises(ValueError, match="a: "):
        sizes.of_header(document, spec_of())


def test_a_checkpoint_is_published_in_fp32_without_what_stays_at_home() -> None:
    exchange = {"claimName": "x", "exclude": ["head.*"]}
    header = {
        "__metadata__": {"format": "pt"},
        "body": {"dtype": "BF16", "shape": [10, 10], "data_offsets": [0, 200]},
        "head.bias": {"dtype": "F32", "shape": [10], "data_offsets": [200, 240]},
        "bn.running_mean": {"dtype": "F32", "shape": [10], "data_offsets": [240, 280]},
    }
    model = sizes.of_header(header, spec_of(exchange=exchange))
    assert [(t.name, t.dtype, t.kind) for t in model.tensors] == [
        ("bn.running_mean", "F32", "buffer"),
        ("body", "F32", "parameter"),
    ]
