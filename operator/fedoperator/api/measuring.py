"""The rules of what is measured, and of what reads it: evaluation, stop, keep."""

from fedoperator.api.base import Rule

_EVALUATOR = "has(self.evaluation) && has(self.evaluation.evaluator)"

SPEC = (
    Rule(
        field="evaluation.by",
        cel=(
            "!has(self.evaluation) || self.evaluation.by == 'Participants' || "
            "self.participants.exists(p, p.name == self.evaluation.by)"
        ),
        holds=lambda spec: (
            spec.evaluation is None
            or spec.evaluation.by == "Participants"
            or spec.participant(spec.evaluation.by) is not None
        ),
        says="{0} is no participant; use Participants, for all of them, or the name of one",
        values=(("self.evaluation.by", lambda spec: spec.evaluation.by),),
    ),
    Rule(
        field="evaluation.evaluator.name",
        cel=(
            f"!({_EVALUATOR}) || "
            "!self.participants.exists(p, p.name == self.evaluation.evaluator.name)"
        ),
        holds=lambda spec: spec.evaluator is None or spec.participant(spec.evaluator.name) is None,
        says="{0} is a participant; name it in evaluation.by, or give the evaluator another name",
        values=(("self.evaluation.evaluator.name", lambda spec: spec.evaluator.name),),
    ),
    Rule(
        field="stop",
        cel="!has(self.stop) || has(self.evaluation)",
        holds=lambda spec: spec.stop is None or spec.evaluation is not None,
        says="reads what an evaluation measures, and there is none; add spec.evaluation: {{}}",
    ),
    Rule(
        field="stop.of",
        cel=(
            "!has(self.stop) || self.stop.of == 'Mean' || !has(self.evaluation) || "
            "(self.evaluation.by == 'Participants' && !has(self.evaluation.evaluator))"
        ),
        holds=lambda spec: (
            spec.stop is None
            or spec.stop.of == "Mean"
            or spec.evaluation is None
            or (spec.evaluation.by == "Participants" and spec.evaluator is None)
        ),
        says="{0} is of several evaluators, there is one; use Mean, or evaluation.by: Participants",
        values=(("self.stop.of", lambda spec: spec.stop.of),),
    ),
    Rule(
        field="keep.best",
        cel="self.keep.best == 0 || has(self.evaluation)",
        holds=lambda spec: not spec.keep.best or spec.evaluation is not None,
        says="needs an evaluation to know what is best; add spec.evaluation: {{}}, or use 0",
    ),
    Rule(
        field="keep.best",
        cel="self.keep.best == 0 || has(self.keep.metric) || has(self.stop)",
        holds=lambda spec: not spec.keep.best or spec.ranking is not None,
        says="needs a metric to know what is best; add keep.metric, or spec.stop, or use 0",
    ),
)
"""Of the whole spec."""
