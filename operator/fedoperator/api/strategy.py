"""spec.strategy: how the accepted updates become the next global model.

What each strategy computes stands in `fedtrain.strategies`, one file each; here stands what can be
asked for. A test holds the two together.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field
from pydantic.alias_generators import to_camel

from fedoperator.api.base import Model, Rule

StrategyName = Literal[
    "FedAvg",
    "FedProx",
    "SCAFFOLD",
    "FedNova",
    "FedAvgM",
    "FedAdam",
    "FedYogi",
    "FedAdagrad",
    "DiLoCo",
    "Median",
    "TrimmedMean",
    "Krum",
    "MultiKrum",
    "Bulyan",
    "GeometricMedian",
    "CenteredClipping",
]
NAMES: tuple[StrategyName, ...] = get_args(StrategyName)

_ADAPTIVE = {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 0.001}
DEFAULTS: Mapping[StrategyName, Mapping[str, float | int | None]] = {
    "FedAvg": {},
    "FedProx": {"mu": 0.01},
    "SCAFFOLD": {"learning_rate": 1.0},
    "FedNova": {"mu": 0.0},
    "FedAvgM": {"learning_rate": 1.0, "momentum": 0.9},
    "FedAdam": _ADAPTIVE,
    "FedYogi": _ADAPTIVE,
    "FedAdagrad": {"learning_rate": 0.01, "beta1": 0.0, "tau": 0.001},
    "DiLoCo": {"learning_rate": 0.7, "momentum": 0.9},
    "Median": {},
    "TrimmedMean": {"trim": 1},
    "Krum": {"byzantine": 1},
    "MultiKrum": {"byzantine": 1, "selected": None},
    "Bulyan": {"byzantine": 1},
    "GeometricMedian": {"iterations": 100, "epsilon": 1e-6},
    "CenteredClipping": {"radius": 10.0, "iterations": 1},
}
"""The parameters of each strategy, with what they are if left out."""

MINIMUMS: Mapping[StrategyName, tuple[int, str, int]] = {
    "Krum": (2, "byzantine", 3),
    "MultiKrum": (2, "byzantine", 3),
    "Bulyan": (4, "byzantine", 3),
    "TrimmedMean": (2, "trim", 1),
}
"""(a, parameter, b): the rule is defined for a · parameter + b updates and more."""

COORDINATEWISE: tuple[StrategyName, ...] = ("Median", "TrimmedMean", "Bulyan")
"""Rules that order the values of each coordinate, where the others form weighted sums."""

COUNTING: tuple[StrategyName, ...] = ("SCAFFOLD", "FedNova")
"""Those that scale updates by how far their participants went."""

LEAST: Mapping[str, float] = {"tau": 1e-12, "epsilon": 1e-30, "radius": 1e-30}
"""Where more than zero is not enough. A rule says it, as the API server takes the bounds of a
schema for whole ones when the number is written without a point."""

PARAMETERS = tuple(sorted({name for given in DEFAULTS.values() for name in given}))

Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


def spelled(name: StrategyName) -> str:
    """The parameters of a strategy as a user writes them, in one line."""
    return ", ".join(map(to_camel, DEFAULTS[name])) or "none"


def _only_its_own(parameter: str) -> Rule:
    """The parameter is given for a strategy that has it, or not at all."""
    field = to_camel(parameter)
    owners = [name for name in NAMES if parameter in DEFAULTS[name]]
    texts = ", ".join(f"'{name}': '{spelled(name)}'" for name in NAMES)
    return Rule(
        field=field,
        cel=f"!has(self.{field}) || self.name in {owners}",
        holds=lambda strategy: getattr(strategy, parameter) is None or strategy.name in owners,
        says="not a parameter of {0}; it has {1}",
        values=(
            ("self.name", lambda strategy: strategy.name),
            (f"{{{texts}}}[self.name]", lambda strategy: spelled(strategy.name)),
        ),
    )


def _not_too_small(field: str) -> Rule:
    least = LEAST[field]
    return Rule(
        field=field,
        cel=f"!has(self.{field}) || self.{field} >= {least}",
        holds=lambda strategy: (getattr(strategy, field) or least) >= least,
        says=f"{{0}} is too small; use {least} or more",
        values=((f"self.{field}", lambda strategy: getattr(strategy, field)),),
    )


_NO_BOUND = Rule(
    field="normBound",
    cel=f"!has(self.normBound) || !(self.name in {list(COUNTING)})",
    holds=lambda strategy: strategy.norm_bound is None or strategy.name not in COUNTING,
    says=(
        "{0} scales an update by what its receipt says after any bound, which then bounds "
        "nothing; leave it out, or use another strategy"
    ),
    values=(("self.name", lambda strategy: strategy.name),),
)


class Strategy(Model):
    """How the accepted updates become the next global model; each strategy has parameters of its
    own, and normBound goes with all but SCAFFOLD and FedNova."""

    rules = (*map(_only_its_own, PARAMETERS), *map(_not_too_small, LEAST), _NO_BOUND)

    name: StrategyName = "FedAvg"
    """FedAvg: the weighted mean (McMahan et al. 2017). FedProx: the same, of participants held
    near the global model (Li et al. 2020). SCAFFOLD: participants corrected by control variates
    (Karimireddy et al. 2020). FedNova: updates normalised by how far participants went (Wang et al.
    2020). FedAvgM, FedAdam, FedYogi, FedAdagrad: a server
    optimizer (Hsu et al. 2019, Reddi et al. 2021). DiLoCo: outer Nesterov momentum (Douillard et
    al. 2023). Against participants who mean harm: Median, TrimmedMean (Yin et al. 2018), Krum,
    MultiKrum (Blanchard et al. 2017), Bulyan (El Mhamdi et al. 2018), GeometricMedian (Pillutla
    et al. 2022), CenteredClipping (Karimireddy et al. 2021)."""

    norm_bound: Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)] | None = None
    """Scales an update with a larger L2 norm down to this one; with any strategy but SCAFFOLD and
    FedNova."""

    mu: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    """FedProx, FedNova: the weight of the proximal term in the participant's loss. Left out: 0.01
    for FedProx, 0.0 for FedNova."""

    learning_rate: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """FedAvgM, FedAdam, FedYogi, FedAdagrad, DiLoCo, SCAFFOLD: of the server's step. Left out: 1.0
    for FedAvgM and SCAFFOLD, 0.7 for DiLoCo, 0.01 for the others."""

    momentum: Fraction | None = None
    """FedAvgM, DiLoCo: of the server's step. Left out: 0.9."""

    beta1: Fraction | None = None
    """FedAdam, FedYogi, FedAdagrad: decay of the first moment. Left out: 0.0 for FedAdagrad, 0.9
    for the others."""

    beta2: Fraction | None = None
    """FedAdam, FedYogi: decay of the second moment. Left out: 0.99."""

    tau: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """FedAdam, FedYogi, FedAdagrad: the degree of adaptivity, added to the root of the second
    moment. Left out: 0.001."""

    trim: Annotated[int, Field(ge=0, le=499)] | None = None
    """TrimmedMean: how many values are cut off at each end; quorum.minimum must be 2·trim + 1 or
    more. Left out: 1."""

    byzantine: Annotated[int, Field(ge=0, le=498)] | None = None
    """Krum, MultiKrum, Bulyan: how many participants may mean harm; quorum.minimum must be
    2·byzantine + 3 or more, 4·byzantine + 3 for Bulyan. Left out: 1."""

    selected: Annotated[int, Field(ge=1, le=1000)] | None = None
    """MultiKrum: how many updates are averaged. Left out: all accepted but `byzantine` ones."""

    iterations: Annotated[int, Field(ge=1, le=10000)] | None = None
    """GeometricMedian, CenteredClipping: how often the center is improved. Left out: 100 for
    GeometricMedian, 1 for CenteredClipping."""

    epsilon: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """GeometricMedian: the least distance that an update is taken to have from the center. Left
    out: 1e-06."""

    radius: Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)] | None = None
    """CenteredClipping: the distance from the center beyond which an update is cut. Left out:
    10.0."""

    def parameter(self, name: str) -> float | int | None:
        """As given, else its default; name: one of this strategy's."""
        given: float | int | None = getattr(self, name)
        return DEFAULTS[self.name][name] if given is None else given

    @property
    def minimum(self) -> int:
        """The fewest updates for which the rule is defined."""
        if self.name not in MINIMUMS:
            return 1
        factor, parameter, more = MINIMUMS[self.name]
        return factor * int(self.parameter(parameter) or 0) + more

    @property
    def document(self) -> dict[str, Any]:
        """As `fedtrain.strategies` reads it: the name, and every parameter that has a value."""
        values = {to_camel(name): self.parameter(name) for name in DEFAULTS[self.name]}
        return {"name": self.name, **{k: value for k, value in values.items() if value is not None}}
