"""Mistakes in what is asked of adapters and of the base model that they stand on."""

from typing import Any

from tests.api.mistakes import MOUNTED, Mistake, participants

PRODUCT = {"adapters": {"aggregation": "Product", "rank": 8}}
TURNS = "Product gives the factors another basis every round"
OTHER_STRATEGIES = (
    ("FedAvgM", {}),
    ("FedAdam", {}),
    ("FedYogi", {}),
    ("FedAdagrad", {}),
    ("DiLoCo", {}),
    ("Median", {}),
    ("GeometricMedian", {}),
    ("CenteredClipping", {}),
)


def a_base(**fields: Any) -> dict[str, Any]:
    return {"model": {"init": {}, "base": {"claimName": "llama", **fields}}}


OF_ADAPTERS = (
    *(
        Mistake(
            f"products of factors under {name}",
            {**PRODUCT, "strategy": {"name": name, **parameters}},
            (
                f"spec.strategy.name: {name} works on the factors, and {TURNS}; use FedAvg or "
                "FedProx, or adapters.aggregation: FrozenA",
            ),
        )
        for name, parameters in OTHER_STRATEGIES
    ),
    Mistake(
        "products of factors with a bound on norms",
        {**PRODUCT, "strategy": {"name": "FedAvg", "normBound": 1.0}},
        (
            "spec.strategy.normBound: bounds the factors, and Product averages what they come to; "
            "leave it out, or use adapters.aggregation: FrozenA",
        ),
    ),
    Mistake(
        "products of factors with error feedback",
        {**PRODUCT, "compression": {"codec": "Int8"}},
        (
            "spec.compression.codec: Int8 adds what it left out to the next update (error "
            f"feedback), and {TURNS}; use BFloat16, or leave compression out",
        ),
    ),
    Mistake(
        "products of factors in exact sums",
        {**PRODUCT, "aggregation": {"precision": "Exact"}},
        (
            "spec.aggregation.precision: Exact is a way to form sums, and Product factors them; "
            "use Float32 or Float64",
        ),
    ),
    Mistake(
        "moments of factors that are factored anew",
        {**PRODUCT, "optimizerState": "Keep"},
        (
            f"spec.optimizerState: Keep holds moments of the factors, and {TURNS}; use Reset, or "
            "adapters.aggregation: FrozenA",
        ),
    ),
    Mistake(
        "a frozen A out of a checkpoint",
        {"adapters": {"aggregation": "FrozenA"}, "model": {"claimName": "c", "path": "adapter"}},
        (
            "spec.model: FrozenA starts from the adapter that the script builds; leave claimName "
            "out, and load it there",
        ),
    ),
    Mistake(
        "a rank of one's own where factors are averaged",
        {"adapters": {"aggregation": "Factors", "rank": 8}, **participants({"adapterRank": 4}, {})},
        (
            "spec.participants: an adapterRank of one's own needs adapters.aggregation: Product "
            "and adapters.rank; add them, or leave it out",
        ),
    ),
    Mistake(
        "a rank of one's own below a rank that nobody says",
        {"adapters": {"aggregation": "Product"}, **participants({"adapterRank": 4}, {})},
        (
            "spec.participants: an adapterRank of one's own needs adapters.aggregation: Product "
            "and adapters.rank; add them, or leave it out",
        ),
    ),
    Mistake(
        "a rank above that of the global adapter",
        {**PRODUCT, **participants({"adapterRank": 16}, {})},
        (
            "spec.participants: an adapterRank is more than adapters.rank, which is 8; use 8 or "
            "less",
        ),
    ),
    Mistake(
        "a copy of a base model that there is not",
        participants({"base": {"claimName": "llama"}}, {}),
        (
            "spec.participants: a base is a copy of model.base, and there is none; add "
            "model.base, or leave it out",
        ),
    ),
    Mistake(
        "a base model whose digest nobody learns",
        {"model": {"claimName": "c", "path": "adapter", "base": {"claimName": "llama"}}},
        (
            "spec.model.base.digest: is missing, and no script learns it where the initial model "
            "is imported; give it",
        ),
    ),
    Mistake(
        "a digest of another kind",
        a_base(digest="md5:1"),
        (
            'spec.model.base.digest: "md5:1" is not a digest; write it like '
            "sha256:<64 hex digits>, or leave it out",
        ),
        theirs="spec.model.base.digest in body should match",
    ),
    Mistake(
        "the exchange as the base model",
        {"model": {"init": {}, "base": {"claimName": "digits-exchange"}}},
        (f"spec.model.base.claimName: {MOUNTED('digits-exchange')}",),
    ),
    Mistake(
        "the exchange as a copy of the base model",
        {**a_base(), **participants({"base": {"claimName": "digits-exchange"}}, {})},
        (f"spec.participants[0].base.claimName: {MOUNTED('digits-exchange')}",),
        theirs=f"spec.participants: Invalid value: {MOUNTED('digits-exchange')}",
    ),
)
