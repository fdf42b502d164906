"""What could not be made is tried again, ever later."""

from datetime import UTC, datetime, timedelta

from fedoperator.cluster.troubles import Troubles
from fedoperator.rounds.observed import Trouble

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUOTA = Trouble(reason="Refused", message="exceeded quota")


def test_waits_double_up_to_a_minute():
    troubles, waits = Troubles(), []
    for _ in range(8):
        troubles.add("job", QUOTA, NOW)
        asked = troubles.wake_at()
        assert asked is not None
        waits.append((asked - NOW).total_seconds())
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]


def test_only_the_one_in_trouble_waits():
    troubles = Troubles()
    troubles.add("job", QUOTA, NOW)
    assert not troubles.may_try("job", NOW + timedelta(seconds=1))
    assert troubles.may_try("job", NOW + timedelta(seconds=2))
    assert troubles.may_try("other", NOW)


def test_the_same_trouble_is_no_news_and_another_is():
    troubles = Troubles()
    assert troubles.add("job", QUOTA, NOW)
    assert not troubles.add("job", QUOTA, NOW)
    assert troubles.add("job", Trouble(reason="NameTaken", message="taken"), NOW)


def test_what_was_made_or_is_not_wanted_any_more_is_forgotten():
    troubles = Troubles()
    for name in ("made", "dropped", "kept"):
        troubles.add(name, QUOTA, NOW)
    troubles.made("made")
    troubles.keep(["kept", "another"])
    assert set(troubles.known()) == {"kept"}
