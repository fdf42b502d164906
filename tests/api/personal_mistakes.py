"""Mistakes in what stays at home, in the last phase, and in who measures what."""

from tests.api.mistakes import Mistake, participants

_SCRATCHES = participants({"scratch": {"claimName": "n"}}, {"scratch": {"claimName": "s"}})
_NO_SCRATCH = participants({"scratch": {"claimName": "n"}}, {})
_AT_HOME = {"exchange": {"size": "1Gi", "exclude": ["head.*"]}}
_DITTO = {"personalization": {"ditto": {"pull": 0.1}}}
_EVALUATOR = {"evaluation": {"evaluator": {"name": "centre"}}}

OF_WHAT_STAYS_AT_HOME = (
    Mistake(
        "layers at home without a place for them",
        {**_AT_HOME, **_NO_SCRATCH},
        (
            "spec.exchange: include and exclude keep layers at each participant from round to "
            "round, which needs a place for them; give every participant a scratch with a "
            "claimName",
        ),
    ),
    Mistake(
        "no pattern in a list of patterns",
        {"exchange": {"size": "1Gi", "include": []}, **_SCRATCHES},
        ("spec.exchange.include: 0 entries; use 1 or more",),
        theirs="spec.exchange.include in body should have at least 1 items",
    ),
    Mistake(
        "Ditto without a place for the model",
        {**_DITTO, **_NO_SCRATCH},
        (
            "spec.personalization.ditto: keeps a model at each participant from round to round, "
            "which needs a place for it; give every participant a scratch with a claimName",
        ),
    ),
    Mistake(
        "a pull away from the global model",
        {"personalization": {"ditto": {"pull": -0.1}}, **_SCRATCHES},
        ("spec.personalization.ditto.pull: -0.1 is too small; use 0 or more",),
        theirs="spec.personalization.ditto.pull in body should be greater than or equal to 0",
    ),
    Mistake(
        "Ditto where the factors turn every round",
        {**_DITTO, **_SCRATCHES, "adapters": {"aggregation": "Product", "rank": 8}},
        (
            "spec.personalization.ditto: pulls each factor towards the global one, and Product "
            "gives the factors another basis every round; leave it out, or use "
            "adapters.aggregation: FrozenA",
        ),
    ),
    Mistake(
        "a personalisation of nothing",
        {"personalization": {}},
        ("spec.personalization: asks for nothing; add ditto, fineTune, or both",),
    ),
    Mistake(
        "an evaluator without the layers that stay at home",
        {**_AT_HOME, **_SCRATCHES, **_EVALUATOR},
        (
            "spec.evaluation.evaluator: has none of the layers that spec.exchange keeps at the "
            "participants, and cannot measure without them; leave it out, and let the "
            "participants evaluate",
        ),
    ),
    Mistake(
        "an evaluator without a personal model",
        {**_DITTO, **_SCRATCHES, **_EVALUATOR},
        (
            "spec.evaluation.evaluator: has no personal model, which ditto would have it measure; "
            "leave it out, and let the participants evaluate",
        ),
    ),
    Mistake(
        "an evaluator of a participant's name",
        {"evaluation": {"evaluator": {"name": "north"}}},
        (
            "spec.evaluation.evaluator.name: north is a participant; name it in evaluation.by, or "
            "give the evaluator another name",
        ),
    ),
    Mistake(
        "two who evaluate",
        {"evaluation": {"by": "north", "evaluator": {"name": "centre"}}},
        (
            "spec.evaluation.by: north would evaluate, and so would evaluator; leave one of them "
            "out",
        ),
    ),
    Mistake(
        "an evaluator that sees everybody's updates",
        {"evaluation": {"evaluator": {"name": "centre", "data": {"claimName": "digits-exchange"}}}},
        (
            "spec.evaluation.evaluator.data.claimName: digits-exchange is the claim of the "
            "exchange, with everybody's updates on it; use another one",
        ),
        theirs="digits-exchange is the claim of the exchange",
    ),
    Mistake(
        "the worst of one",
        {
            "evaluation": {"by": "north"},
            "stop": {"metric": "accuracy", "target": 0.9, "of": "Worst"},
        },
        (
            "spec.stop.of: Worst is of several evaluators, there is one; use Mean, or "
            "evaluation.by: Participants",
        ),
    ),
    Mistake(
        "the best models of a training that measures none",
        {"keep": {"best": 2, "metric": "accuracy"}},
        (
            "spec.keep.best: needs an evaluation to know what is best; add spec.evaluation: {}, "
            "or use 0",
        ),
    ),
    Mistake(
        "the best models by nothing",
        {"keep": {"best": 2}, "evaluation": {}},
        (
            "spec.keep.best: needs a metric to know what is best; add keep.metric, or spec.stop, "
            "or use 0",
        ),
    ),
)
