"""spec.personalization, and the rules of what stays with a participant."""

from typing import Annotated, Any

from pydantic import Field

from fedoperator.api.base import Model, Rule


class Ditto(Model):
    """A personal model at each participant, trained beside the global one and never sent; the
    script gives it to rounds(..., personal=, personal_optimizer=)."""

    pull: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    """λ: how strongly the personal model is drawn to the global one that the round began with; 0
    for one that only this participant's data ever saw."""


class FineTune(Model):
    """After the last round each participant trains the global model once more, for itself alone;
    the metrics before and after are reported, the model stays on its scratch."""

    parameters: Annotated[dict[str, Any], Field(max_length=100)] = {}
    """In place of those of spec.parameters that have the same names."""


class Personalization(Model):
    """What each participant gets for itself."""

    rules = (
        Rule(
            cel="has(self.ditto) || has(self.fineTune)",
            holds=lambda personal: personal.ditto is not None or personal.fine_tune is not None,
            says="asks for nothing; add ditto, fineTune, or both",
        ),
    )

    ditto: Ditto | None = None
    fine_tune: FineTune | None = None


def _everybody_has_scratch(spec: Any) -> bool:
    return all(participant.scratch is not None for participant in spec.participants)


_SCRATCH = "self.participants.all(p, has(p.scratch))"
_AT_HOME = "has(self.exchange.include) || has(self.exchange.exclude)"

SPEC = (
    Rule(
        field="exchange",
        cel=f"!({_AT_HOME}) || {_SCRATCH}",
        holds=lambda spec: not spec.exchange.keeps_at_home or _everybody_has_scratch(spec),
        says=(
            "include and exclude keep layers at each participant from round to round, which needs "
            "a place for them; give every participant a scratch with a claimName"
        ),
    ),
    Rule(
        field="personalization.ditto",
        cel=f"!has(self.personalization) || !has(self.personalization.ditto) || {_SCRATCH}",
        holds=lambda spec: spec.ditto is None or _everybody_has_scratch(spec),
        says=(
            "keeps a model at each participant from round to round, which needs a place for it; "
            "give every participant a scratch with a claimName"
        ),
    ),
    Rule(
        field="evaluation.evaluator",
        cel=f"!({_AT_HOME}) || !has(self.evaluation) || !has(self.evaluation.evaluator)",
        holds=lambda spec: not spec.exchange.keeps_at_home or spec.evaluator is None,
        says=(
            "has none of the layers that spec.exchange keeps at the participants, and cannot "
            "measure without them; leave it out, and let the participants evaluate"
        ),
    ),
    Rule(
        field="evaluation.evaluator",
        cel=(
            "!has(self.personalization) || !has(self.personalization.ditto) || "
            "!has(self.evaluation) || !has(self.evaluation.evaluator)"
        ),
        holds=lambda spec: spec.evaluator is None or spec.ditto is None,
        says=(
            "has no personal model, which ditto would have it measure; leave it out, and let the "
            "participants evaluate"
        ),
    ),
)
"""Of the whole spec."""
