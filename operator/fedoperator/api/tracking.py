"""spec.tracking: which trackers hear of the rounds; not where those are."""

from typing import Annotated

from pydantic import Field

from fedoperator.api.base import Model, Rule

Experiment = Annotated[
    str,
    Field(
        pattern="^[a-zA-Z0-9]([-a-zA-Z0-9_. ]*[a-zA-Z0-9])?$",
        min_length=1,
        max_length=100,
        title="name of an experiment",
        json_schema_extra={"example": "digits"},
    ),
]


class Mlflow(Model):
    """Each training is a run of an experiment on an MLflow server, each round a step of it."""

    experiment: Experiment | None = None
    """Made if need be, on a cluster below the training's namespace: NAMESPACE/EXPERIMENT. Left
    out: it is called as the training is."""


class TensorBoard(Model):
    """Each training is a run of TensorBoard's, in a folder of event files."""


class Tracking(Model):
    """Send what FederatedRounds hold to MLflow or TensorBoard, after each round. To which server
    and volume is up to whoever runs the platform, or `fedtrain run`. Changes at any time."""

    rules = (
        Rule(
            cel="has(self.mlflow) || has(self.tensorboard)",
            holds=lambda given: given.mlflow is not None or given.tensorboard is not None,
            says="names no tracker; add mlflow, tensorboard, or both",
        ),
    )

    mlflow: Mlflow | None = None
    tensorboard: TensorBoard | None = None
