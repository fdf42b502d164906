"""The environment variables, and the lines that are logged."""

import logging

import pytest

from fedoperator.cluster.logs import KeyValue
from fedoperator.settings import Settings

IMAGE = {"FEDTRAIN_CONTROLLER_IMAGE": "fedtrain/controller:1"}


def test_only_the_image_has_to_be_named():
    settings = Settings.from_environment(IMAGE)
    assert settings.controller_image == "fedtrain/controller:1"
    assert settings.namespace == ""
    assert settings.port == 8080
    assert settings.lease_namespace == "default"


def test_two_processes_on_one_machine_are_two_candidates():
    first, second = Settings.from_environment(IMAGE), Settings.from_environment(IMAGE)
    assert first.identity != second.identity


def test_the_lease_lies_in_the_watched_namespace_unless_said_otherwise():
    watched = {**IMAGE, "FEDTRAIN_NAMESPACE": "team"}
    assert Settings.from_environment(watched).lease_namespace == "team"
    said = {**watched, "FEDTRAIN_LEASE_NAMESPACE": "system"}
    assert Settings.from_environment(said).lease_namespace == "system"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("CONTROLLER_IMAGE", " ", "FEDTRAIN_CONTROLLER_IMAGE is not set"),
        ("PORT", "http", "'http' is not a whole number from 0 to 65535; leave it out for 8080"),
        ("PORT", "70000", "0 to 65535"),
        ("WORKERS", "0", "from 1 to 64"),
        ("LOG_LEVEL", "loud", "'LOUD' is none of DEBUG, INFO, WARNING, ERROR"),
    ],
)
def test_a_wrong_variable_is_named_with_a_remedy(name, value, sentence):
    with pytest.raises(ValueError, match=f"FEDTRAIN_{name}") as caught:
        Settings.from_environment({**IMAGE, f"FEDTRAIN_{name}": value})
    assert sentence in str(caught.value)


def test_a_message_is_one_line_of_keys_and_values():
    fields = {"training": "digits", "said": 'no "quota"\nleft', "empty": ""}
    record = logging.makeLogRecord({"msg": "look failed", "name": "x", **fields})
    line = KeyValue().format(record)
    assert "\n" not in line
    assert 'msg="look failed" training=digits said="no \\"quota\\"\\nleft" empty=""' in line


def test_a_traceback_stays_on_its_line():
    try:
        raise KeyError("uid")
    except KeyError as error:
        record = logging.makeLogRecord({"exc_info": (KeyError, error, error.__traceback__)})
    line = KeyValue().format(record)
    assert "\n" not in line
    assert "KeyError: 'uid'" in line
