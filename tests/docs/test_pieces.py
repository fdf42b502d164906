"""Pieces of a resource that pages show: put into a whole one, they are valid."""

from typing import Any

import pytest
import yaml

from fedoperator.api import admission
from fedoperator.api.training import TrainingSpec
from tests.docs.conftest import DOCS, ROOT, blocks

WHOLE: dict[str, Any] = {
    "apiVersion": "fedtrain.dev/v1alpha1",
    "kind": "FederatedTraining",
    "metadata": {"name": "piece"},
}
REST: dict[str, Any] = {
    "rounds": 3,
    "trainer": {"image": "registry.example.com/piece", "command": ["torchrun", "train.py"]},
    "participants": [
        {"name": f"hospital-{letter}", "scratch": {"claimName": f"scratch-{letter}"}}
        for letter in "abcdefghi"
    ],
    "exchange": {"size": "1Gi"},
}
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]
PIECES = [
    pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, (_, text) in enumerate(blocks(page, "yaml"))
]


def whole(piece: dict[str, Any]) -> dict[str, Any] | None:
    """The training that a piece is of; None if it is of something else."""
    if piece.get("kind", "FederatedTraining") != "FederatedTraining":
        return None
    spec = piece.get("spec", {key: value for key, value in piece.items() if key not in WHOLE})
    if unknown := set(spec) - {field.alias for field in TrainingSpec.model_fields.values()}:
        pytest.fail(f"no fields of a training: {', '.join(sorted(unknown))}")
    spec = {**REST, **spec, "trainer": {**REST["trainer"], **spec.get("trainer", {})}}
    if any(key in spec for key in ("stop", "keep")):
        spec.setdefault("evaluation", {})
    return {**WHOLE, "metadata": {**WHOLE["metadata"], **piece.get("metadata", {})}, "spec": spec}


def test_there_are_pieces() -> None:
    assert len(PIECES) > 15


@pytest.mark.parametrize("text", PIECES)
def test_a_piece_is_valid(text: str) -> None:
    for piece in yaml.safe_load_all(text):
        if (document := whole(piece)) is not None:
            assert [str(problem) for problem in admission.problems(None, document)] == []
