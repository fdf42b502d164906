"""What spans several fields of a FederatedTraining, each in CEL and in Python.

Rules about one object stand at its model. What CEL cannot afford at 1,000 participants is said in
`fedoperator.api.admission` alone.
"""

from collections.abc import Iterator

from pydantic.alias_generators import to_camel

from fedoperator.api import adapters, measuring, personal, scheduling
from fedoperator.api.base import NAME_LIMIT, NAME_PATTERN, Rule
from fedoperator.api.strategy import COORDINATEWISE, COUNTING, DEFAULTS, MINIMUMS
from fedoperator.api.trainer import TrainerFields
from fedoperator.api.training import TrainingSpec


def _participants(spec: TrainingSpec) -> int:
    return len(spec.participants)


def _can_be_invited(spec: TrainingSpec) -> bool:
    """As rounds.selection counts: the fraction rounded up, and at least the minimum."""
    share = spec.selection.fraction * len(spec.participants) - 1e-9
    return spec.quorum.minimum <= spec.selection.minimum or spec.quorum.minimum - 1 < share


def _given_by_all(field: str) -> Rule:
    """The default trainer has the field, or every participant brings its own."""

    def holds(spec: TrainingSpec) -> bool:
        everybody = (spec.trainer_of(site) for site in spec.sites)
        return all(getattr(trainer, field) is not None for trainer in everybody)

    return Rule(
        field=f"trainer.{field}",
        cel=(
            f"has(self.trainer.{field}) || "
            f"(self.participants.all(p, has(p.trainer) && has(p.trainer.{field})) && "
            "(!has(self.evaluation) || !has(self.evaluation.evaluator) || "
            "(has(self.evaluation.evaluator.trainer) && "
            f"has(self.evaluation.evaluator.trainer.{field}))))"
        ),
        holds=holds,
        says="is missing; give it here, or in the trainer of every participant",
    )


def _at_most_everybody(field: str, cannot: str) -> Rule:
    """The minimum of this field is no more than there are participants."""

    def minimum(spec: TrainingSpec) -> int:
        given: int = getattr(spec, field).minimum
        return given

    return Rule(
        field=f"{field}.minimum",
        cel=f"self.{field}.minimum <= size(self.participants)",
        holds=lambda spec: minimum(spec) <= _participants(spec),
        says=f"{{0}} {cannot}, there are {{1}} participants; use {{1}} or less, or add some",
        values=(
            (f"self.{field}.minimum", minimum),
            ("size(self.participants)", _participants),
        ),
    )


def _rule_needs() -> str:
    """CEL: the fewest updates for which the strategy is defined, as `Strategy.minimum` says it."""
    needs = "1"
    for name, (factor, parameter, more) in MINIMUMS.items():
        field, default = f"self.strategy.{to_camel(parameter)}", DEFAULTS[name][parameter]
        given = f"{factor} * (has({field}) ? {field} : {default}) + {more}"
        needs = f"(self.strategy.name == '{name}' ? {given} : {needs})"
    return needs


SPEC = (
    *adapters.RULES,
    _given_by_all("image"),
    _given_by_all("command"),
    _at_most_everybody("quorum", "can never report"),
    _at_most_everybody("selection", "cannot be selected"),
    Rule(
        field="quorum.minimum",
        cel=(
            # Whatever is more than the participants has its own sentence above.
            "self.quorum.minimum > size(self.participants) || "
            "self.quorum.minimum <= self.selection.minimum || "
            "double(self.quorum.minimum - 1) < "
            "self.selection.fraction * double(size(self.participants)) - 0.000000001"
        ),
        holds=lambda spec: spec.quorum.minimum > _participants(spec) or _can_be_invited(spec),
        says="{0} is more than a round invites; raise selection.minimum to {0}, or lower this",
        values=(("self.quorum.minimum", lambda spec: spec.quorum.minimum),),
    ),
    Rule(
        field="quorum.minimum",
        cel=f"self.quorum.minimum >= {_rule_needs()}",
        holds=lambda spec: spec.quorum.minimum >= spec.strategy.minimum,
        says="{0} is too few for {1} with the parameters of spec.strategy; use {2} or more",
        values=(
            ("self.quorum.minimum", lambda spec: spec.quorum.minimum),
            ("self.strategy.name", lambda spec: spec.strategy.name),
            (_rule_needs(), lambda spec: spec.strategy.minimum),
        ),
    ),
    Rule(
        field="aggregation.precision",
        cel=(
            "self.aggregation.precision != 'Exact' || "
            f"!(self.strategy.name in {list(COORDINATEWISE)})"
        ),
        holds=lambda spec: (
            spec.aggregation.precision != "Exact" or spec.strategy.name not in COORDINATEWISE
        ),
        says="Exact is a way to form sums, and {0} forms none; use Float32 or Float64",
        values=(("self.strategy.name", lambda spec: spec.strategy.name),),
    ),
    Rule(
        field="aggregation.precision",
        cel=(f"self.aggregation.precision != 'Exact' || !(self.strategy.name in {list(COUNTING)})"),
        holds=lambda spec: (
            spec.aggregation.precision != "Exact" or spec.strategy.name not in COUNTING
        ),
        says=(
            "Exact has room for weights that sum to 1, and those of {0} may be more; "
            "use Float32 or Float64"
        ),
        values=(("self.strategy.name", lambda spec: spec.strategy.name),),
    ),
    Rule(
        field="strategy.name",
        cel=("self.strategy.name != 'SCAFFOLD' || self.participants.all(p, has(p.scratch))"),
        holds=lambda spec: (
            spec.strategy.name != "SCAFFOLD"
            or all(participant.scratch is not None for participant in spec.participants)
        ),
        says=(
            "SCAFFOLD keeps a control variate at each participant, and needs a place for it; give "
            "every participant a scratch, or use FedProx"
        ),
    ),
    Rule(
        field="compression",
        cel="!has(self.compression) || self.strategy.name != 'SCAFFOLD'",
        holds=lambda spec: spec.compression is None or spec.strategy.name != "SCAFFOLD",
        says=(
            "SCAFFOLD makes of the same update a participant's control variate and the server's, "
            "which part ways when it loses something on the way; leave it out"
        ),
    ),
    Rule(
        field="optimizerState",
        cel="self.optimizerState == 'Reset' || self.strategy.name != 'FedNova'",
        holds=lambda spec: spec.optimizer_state == "Reset" or spec.strategy.name != "FedNova",
        says=(
            "Keep brings along momentum of earlier rounds, which FedNova's norm of this round's "
            "steps does not count; use Reset"
        ),
    ),
    Rule(
        field="compression.codec",
        cel=(
            "!has(self.compression) || self.compression.codec == 'BFloat16' || "
            "self.strategy.name != 'FedNova'"
        ),
        holds=lambda spec: (
            spec.compression is None
            or spec.compression.codec == "BFloat16"
            or spec.strategy.name != "FedNova"
        ),
        says=(
            "{0} adds to an update what earlier ones left out (error feedback), which FedNova "
            "would normalise by this round's steps; use BFloat16, or leave it out"
        ),
        values=(("self.compression.codec", lambda spec: spec.compression.codec),),
    ),
    Rule(
        field="compression.codec",
        cel=(
            "!has(self.compression) || self.compression.codec != 'TopK' || "
            "self.participants.all(p, has(p.scratch))"
        ),
        holds=lambda spec: (
            spec.compression is None
            or spec.compression.codec != "TopK"
            or all(participant.scratch is not None for participant in spec.participants)
        ),
        says=(
            "TopK keeps for later rounds what an update leaves out (error feedback), and needs a "
            "place for it; give every participant a scratch with a claimName, or use Int8"
        ),
    ),
    *measuring.SPEC,
    *personal.SPEC,
    *scheduling.SPEC,
)

NAME = Rule(
    cel=f"size(self.metadata.name) <= {NAME_LIMIT} && self.metadata.name.matches('{NAME_PATTERN}')",
    holds=lambda _: True,  # admission says it in the words of every other name
    says=(
        "metadata.name: {0} is not the name of a training; use at most "
        f"{NAME_LIMIT} lower-case letters, digits and -, beginning with a letter"
    ),
    values=(("self.metadata.name", lambda name: name),),
)

_EXCHANGE = (
    "(has(self.spec.exchange.claimName) ? self.spec.exchange.claimName : "
    "self.metadata.name + '-exchange')"
)
EXCHANGE_MOUNTED = (
    "{0} is the claim of the exchange, with everybody's updates on it; use another one"
)


def exchange_mounts(spec: TrainingSpec, training: str) -> Iterator[str]:
    """Fields of the spec that would show a participant the updates of all others."""
    claim = spec.exchange.claim_of(training)
    if spec.model.base is not None and spec.model.base.claim_name == claim:
        yield "model.base.claimName"
    trainers: list[tuple[str, TrainerFields]] = [("trainer", spec.trainer)]
    for index, participant in enumerate(spec.participants):
        if participant.data is not None and participant.data.claim_name == claim:
            yield f"participants[{index}].data.claimName"
        if participant.scratch is not None and participant.scratch.claim_name == claim:
            yield f"participants[{index}].scratch.claimName"
        if participant.base is not None and participant.base.claim_name == claim:
            yield f"participants[{index}].base.claimName"
        if participant.trainer is not None:
            trainers.append((f"participants[{index}].trainer", participant.trainer))
    if spec.evaluator is not None:
        data, override = spec.evaluator.data, spec.evaluator.trainer
        if data is not None and data.claim_name == claim:
            yield "evaluation.evaluator.data.claimName"
        if override is not None:
            trainers.append(("evaluation.evaluator.trainer", override))
    for field, trainer in trainers:
        for number, volume in enumerate(trainer.volumes or ()):
            source = volume.persistent_volume_claim
            if source is not None and source.claim_name == claim:
                yield f"{field}.volumes[{number}].persistentVolumeClaim.claimName"


def _no_exchange(field: str, cel: str) -> Rule:
    """`exchange_mounts` in CEL, where `claim` is the exchange's, worked out once."""
    return Rule(
        field=field,
        cel=f"[{_EXCHANGE}].all(claim, {cel})",
        holds=lambda _: True,  # admission names the very volume
        says=EXCHANGE_MOUNTED,
        values=((_EXCHANGE, lambda claim: claim),),
    )


def _volumes(trainer: str) -> str:
    """CEL: none of the trainer's volumes is the claim."""
    return (
        f"(!has({trainer}.volumes) || {trainer}.volumes.all(v, !has(v.persistentVolumeClaim) || "
        "v.persistentVolumeClaim.claimName != claim))"
    )


_EVALUATOR = "self.spec.evaluation.evaluator"

ROOT = (
    NAME,
    _no_exchange(
        "spec.model.base.claimName",
        "!has(self.spec.model.base) || self.spec.model.base.claimName != claim",
    ),
    _no_exchange("spec.trainer.volumes", _volumes("self.spec.trainer")),
    _no_exchange(
        "spec.participants",
        "self.spec.participants.all(p, (!has(p.data) || p.data.claimName != claim) && "
        "(!has(p.scratch) || p.scratch.claimName != claim) && "
        "(!has(p.base) || p.base.claimName != claim) && "
        f"(!has(p.trainer) || {_volumes('p.trainer')}))",
    ),
    _no_exchange(
        "spec.evaluation",
        "!has(self.spec.evaluation) || !has(self.spec.evaluation.evaluator) || "
        # Spelled out: a list made of it would have no bound, and no rule over it a cost.
        f"((!has({_EVALUATOR}.data) || {_EVALUATOR}.data.claimName != claim) && "
        f"(!has({_EVALUATOR}.trainer) || {_volumes(f'{_EVALUATOR}.trainer')}))",
    ),
)
"""Of the whole object: what the name takes part in."""
