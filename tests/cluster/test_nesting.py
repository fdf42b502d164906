"""What is nested deeper than Python reads keeps nobody's objects from being read."""

import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fedoperator.cluster import answers, nesting


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


async def test_what_kopf_reads_has_nothing_too_deep_and_of_a_list_nothing_large():
    metadata = {"name": "a", "managedFields": [{}]}
    job: Any = {"metadata": metadata, "spec": {"template": {}, "suspend": True}}
    deep = nested(3000)

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.query.get("watch"):
            return web.Response(
                text=f'{{"a":1}}\n{deep}\n{{"b":2}}', content_type="application/json"
            )
        return web.Response(text=json.dumps({"items": [job]}), content_type="application/json")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with aiohttp.ClientSession(response_class=answers.Response) as session:
            async with session.get(url) as listed:
                found = await listed.json()
            async with session.get(url, params={"watch": "true"}) as watched:
                lines = [chunk async for chunk in watched.content.iter_chunked(7)]
    finally:
        await runner.cleanup()
    assert found == {"items": [{"metadata": {"name": "a"}, "spec": {"suspend": True}}]}
    first, second, third = b"".join(lines).split(b"\n")
    assert (json.loads(first), json.loads(third)) == ({"a": 1}, {"b": 2})
    assert list(json.loads(second)) == ["a"]
