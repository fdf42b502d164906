"""Which tensors of a model travel: `spec.exchange.include` and `exclude`, patterns on their names.

What does not travel stays with each participant as its own layers: FedPer keeps the last layers at
home (Arivazhagan et al. 2019, "Federated Learning with Personalization Layers"), FedBN the batch
norms (Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch
Normalization"). `Exchanged` shows the rest of the model as if it were all of it, so that nothing
that reads or writes the exchange ever sees another tensor.
"""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from fedtrain.errors import ContractError
from fedtrain.proximal import Proximal
from fedtrain.schema import Schema
from fedtrain.weights import Seen, Weights


def travels(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a tensor of this name is exchanged: included (or nothing is), and not excluded."""
    included = not include or any(fnmatchcase(name, pattern) for pattern in include)
    return included and not any(fnmatchcase(name, pattern) for pattern in exclude)


def parted(
    weights: Weights, include: Sequence[str], exclude: Sequence[str]
) -> tuple[Weights, tuple[str, ...]]:
    """The model as the exchange sees it, and the names of the tensors that stay at home.

    Raises ContractError for a pattern that matches nothing (PatternUnmatched), if nothing would
    travel (NothingExchanged), and for a tie across the border (TiedAcrossBorder).
    """
    if not include and not exclude:
        return weights, ()
    names = weights.names()
    for field, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ContractError(
                    "PatternUnmatched",
                    f"spec.exchange.{field}: {pattern!r} matches no tensor of the model, whose "
                    f"first is {min(names, default='')!r}; correct it, or leave it out",
                )
    verdicts = {name: travels(name, include, exclude) for name in names}
    for name, owner in names.items():
        if verdicts[name] is not verdicts[owner]:
            raise ContractError(
                "TiedAcrossBorder",
                f"spec.exchange: {name!r} and {owner!r} are one tensor, of which one would travel "
                "and the other stay at home; write patterns that match both or neither",
            )
    owners = frozenset(spec.name for spec in weights.schema.tensors if verdicts[spec.name])
    if not owners:
        sentence = "spec.exchange: all tensors would stay at home; exchange some of them"
        raise ContractError("NothingExchanged", sentence)
    home = tuple(spec.name for spec in weights.schema.tensors if spec.name not in owners)
    return Exchanged(weights, owners), home


class Exchanged(Seen):
    """The tensors of a model that travel, as `Weights`."""

    def __init__(self, whole: Weights, names: frozenset[str]) -> None:
        super().__init__(whole)
        self._schema = Schema.of(spec for spec in whole.schema.tensors if spec.name in names)

    @property
    def schema(self) -> Schema:
        return self._schema

    def names(self) -> Mapping[str, str]:
        own = {spec.name for spec in self.schema.tensors}
        return {name: owner for name, owner in super().names().items() if owner in own}

    def proximal(
        self, mu: float, names: Collection[str] | None = None, around: Weights | None = None
    ) -> Proximal:
        """Over what travels alone: there is no global value to hold the rest near."""
        own = {spec.name for spec in self.schema.tensors}
        return super().proximal(mu, own if names is None else own & set(names), around)
