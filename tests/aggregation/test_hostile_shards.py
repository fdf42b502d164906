"""What one shard finds in an update removes the participant from all of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fedtrain.contract import MANIFEST_FILE
from fedtrain.manifest import Manifest
from tests.aggregation.hostile.processes import aggregated
from tests.aggregation.hostile.rounds import Attack, published
from tests.aggregation.hostile.values import VALUES

pytestmark = pytest.mark.processes

STRATEGIES = ({"name": "FedAdam"}, {"name": "Median"}, {"name": "Bulyan"})


def sharded(attack: Attack, **said: Any) -> Manifest:
    task = attack.federation.task(shards=2, **said)
    ended = aggregated(attack.federation, task, (0, 0))
    assert [one.code for one in ended] == [0, 0], [one.output for one in ended]
    folder = attack.federation.root / task.output
    return Manifest.from_json((folder / MANIFEST_FILE).read_text())


@pytest.mark.parametrize("strategy", STRATEGIES, ids=[one["name"] for one in STRATEGIES])
def test_two_shards_refuse_the_same_for_the_same_reasons_and_publish_as_without_them(
    tmp_path: Path, strategy: Mapping[str, Any]
) -> None:
    attack = Attack.of(VALUES, tmp_path / "attacked")
    found = sharded(attack, strategy=strategy)
    honest = Attack.of((), tmp_path / "honest")
    without = sharded(honest, strategy=strategy)
    assert published(attack.federation.root, 1) == published(honest.federation.root, 1)
    assert found.digest == without.digest
    reasons = {entry.participant: entry.reason for entry in found.rejected}
    assert reasons.keys() == attack.cases.keys()
    assert all(reasons[name] in case.reasons for name, case in attack.cases.items())
    alone = Attack.of(VALUES, tmp_path / "alone")
    alone.aggregate(strategy=strategy)
    assert alone.federation.manifest().digest == found.digest
    assert alone.federation.manifest().rejected == found.rejected
