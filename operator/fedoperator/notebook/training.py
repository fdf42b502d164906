"""The resource that YAML describes, from Python's objects."""

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fedoperator.api import API_VERSION, admission, base, crd
from fedoperator.api.training import KIND, TrainingSpec
from fedoperator.cli import validate
from fedoperator.local import folder
from fedoperator.local.folder import Refused
from fedoperator.notebook import html
from fedoperator.notebook.document import plain
from fedoperator.notebook.local import LocalRun

if TYPE_CHECKING:
    from fedoperator.notebook.cluster import ClusterRun


class Invalid(ValueError):
    """The training cannot be as it was asked for: a line per problem, as `fedtrain validate` says
    it."""


class FederatedTraining:
    """A FederatedTraining of this name: the resource that YAML describes, checked when it is made.

    The fields are those of the YAML's spec, in snake_case or camelCase, as mappings, lists or the
    models of `fedoperator.api`; a participant may be only its name. Raises Invalid.
    """

    __signature__: ClassVar[inspect.Signature] = inspect.Signature(
        [
            inspect.Parameter("name", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=str),
            *(
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, name=field)
                for parameter, field in zip(
                    inspect.signature(TrainingSpec).parameters.values(),
                    TrainingSpec.model_fields,
                    strict=True,
                )
            ),
        ]
    )
    """For a notebook's help and completion: the fields as the API's models have them."""

    def __init__(self, name: str, **spec: Any) -> None:
        metadata = {"name": plain(name, {})}
        document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata}
        self._become({**document, "spec": _spelled(spec)}, None)

    def _become(self, document: dict[str, Any], scripts: Path | None) -> None:
        problems = admission.problems(None, document)
        if problems:
            raise Invalid("\n".join(str(problem) for problem in problems))
        if "name" not in document["metadata"]:
            raise Invalid("metadata.name: is missing; generateName is for kubectl create only")
        self._document = document
        self._scripts = scripts
        self.spec = TrainingSpec.model_validate(document["spec"])

    @property
    def name(self) -> str:
        return str(self._document["metadata"]["name"])

    @property
    def document(self) -> dict[str, Any]:
        """What `to_yaml` writes, as plain values; a copy."""
        copied: dict[str, Any] = plain(self._document, {})
        return copied

    def replace(self, **changes: Any) -> "FederatedTraining":
        """Another training, with these fields of the spec in place of the ones it has."""
        document = self.document
        made = type(self).__new__(type(self))
        made._become({**document, "spec": document["spec"] | _spelled(changes)}, self._scripts)
        return made

    def to_yaml(self) -> str:
        """What was given, as `kubectl apply -f` and `fedtrain run` read it."""
        return folder.dump(self._document)

    @classmethod
    def from_yaml(cls, source: str | Path) -> "FederatedTraining":
        """The one training in a file, or in a text of several lines; raises Invalid.

        Its commands will run in the folder of the file.
        """
        text = isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{"))
        try:
            found = validate.trainings_in(str(source)) if text else validate.trainings(str(source))
        except validate.Unreadable as error:
            raise Invalid(f"{'the text' if text else source} {error}") from error
        if len(found) != 1:
            raise Invalid(f"{len(found)} trainings are in it; give one")
        made = cls.__new__(cls)
        made._become(found[0], None if text else Path(source).resolve().parent)
        return made

    def run(
        self,
        out: str | Path,
        *,
        scripts: str | Path | None = None,
        jobs: int | None = None,
        claims: dict[str, str | Path] | None = None,
        give_up_after: str = "10m",
    ) -> LocalRun:
        """Start it on this machine, as `fedtrain run --out` does; it goes on where it was.

        scripts: the folder its commands run in; that of the YAML file, else the current one. jobs:
        ranks at a time, as many as there are cores if left out. claims: folders that stand for
        claims, by name. give_up_after: a training blocked for that long is left. The processes end
        with this one, with `stop()`, and when a loop over the run is left. Raises Refused.
        """
        if len(give_up_after) < 2 or not re.match(base.DURATION_PATTERN, give_up_after):
            remedy = "write it like 90s or 10m"
            raise Refused(f"give_up_after: {give_up_after!r} is not a time; {remedy}")
        for name, path in (claims or {}).items():
            if not Path(path).is_dir():
                remedy = "name one that exists"
                raise Refused(f"claims[{name!r}]: {path} is not a folder; {remedy}")
        return LocalRun.start(
            self.document,
            out=Path(out),
            scripts=Path(scripts or self._scripts or "."),
            jobs=jobs,
            claims={name: Path(path) for name, path in (claims or {}).items()},
            give_up_after=give_up_after,
        )

    def submit(
        self,
        namespace: str | None = None,
        *,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
    ) -> "ClusterRun":
        """Create it on a cluster, or change the one that has its name there; raises Refused.

        namespace: that of the kubeconfig's context if left out. kubeconfig: a file; KUBECONFIG,
        ~/.kube/config or, in a pod, its service account if left out.
        """
        from fedoperator.notebook.cluster import ClusterRun

        return ClusterRun.submit(
            self.document, namespace=namespace, kubeconfig=kubeconfig, context=context
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FederatedTraining) and self._document == other._document

    def __hash__(self) -> int:
        return hash(self.to_yaml())

    def __repr__(self) -> str:
        count = len(self.spec.participants)
        return f"<FederatedTraining {self.name}: {self.spec.rounds} rounds, {count} participants>"

    def _repr_html_(self) -> str:
        rows = []
        for participant in self.spec.participants[: html.MOST]:
            trainer = self.spec.trainer_of(participant)
            command = " ".join([*(trainer.command or []), *(trainer.args or [])])
            rows.append([participant.name, trainer.nodes or 1, command])
        title = f"{self.spec.rounds} rounds of {self.spec.strategy.name}"
        left_out = len(self.spec.participants) - html.MOST, "participants"
        return html.table(self.name, title, ["participant", "nodes", "command"], rows, left_out)


def _spelled(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a spec as YAML would have them."""
    try:
        spelled: dict[str, Any] = plain(fields, crd.spec_schema())
    except ValueError as error:
        raise Invalid(f"spec: {error}") from error
    return spelled
