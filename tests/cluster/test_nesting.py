"""What is nested deeper than Python reads keeps nobody's objects from being read."""

import json

import pytest

from fedoperator.cluster import nesting


def nested(levels: int, begin: str = '{"a":', end: str = "}") -> str:
    return begin * levels + "1" + end * levels


def test_what_is_not_too_deep_is_read_as_it_is():
    text = '{"items":[' + ",".join(['{"a":[1,{"b":"]}"}]}'] * 200) + "]}"
    assert nesting.cut(text.encode()) == text.encode()
    assert nesting.loads(text) == json.loads(text)
    whole = nested(nesting.LIMIT)
    assert nesting.cut(whole.encode()) == whole.encode()


@pytest.mark.parametrize(("begin", "end"), [('{"a":', "}"), ("[", "]"), ('[{"[{\\"":', "}]")])
def test_what_lies_too_deep_is_left_out_and_the_rest_is_read(begin, end):
    deep = nested(9000, begin, end)
    found = nesting.loads(f'{{"before":{{"x":[1]}},"deep":{deep},"again":[{deep}],"after":"}}]"}}')
    assert found["before"] == {"x": [1]}
    assert found["after"] == "}]"
    assert list(found) == ["before", "deep", "again", "after"]


def test_a_text_that_ends_too_deep_is_no_json():
    with pytest.raises(ValueError, match="Expecting"):
        nesting.loads('{"a":' * 5000)
