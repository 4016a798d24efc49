"""The reflector against a server that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from gpufleet.kube.client import Json, KubeClient
from gpufleet.kube.errors import ApiStatusError, BadAnswer, NotServed, Unreachable
from gpufleet.kube.reflector import SETTLED_SECONDS, Changed, Reflector, Removed, Replaced, decode_json
from gpufleet.kube.retry import Backoff
from tests.support.scripted_api import Answer, ScriptedApi, scripted_api, scripted_client, status, until

BACKOFF = Backoff(base=1.0, cap=8.0)


def pod(name: str, version: int) -> Json:
    return {"metadata": {"name": name, "namespace": "n", "resourceVersion": str(version)}}


def pods(version: int, *names: str, token: str = "") -> Answer:
    return Answer(
        body={
            "metadata": {"resourceVersion": str(version), "continue": token},
            "items": [pod(name, version) for name in names],
        }
    )


def event(kind: str, name: str, version: int) -> Json:
    return {"type": kind, "object": pod(name, version)}


def bookmark(version: int) -> Json:
    return {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": str(version)}}}


GONE = {"type": "ERROR", "object": status(410, "Expired", "too old resource version")}


class View:
    """A sink that keeps the names that exist, and a log of what it was told."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.log: list[str] = []
        self.fail_on = ""
        self.told = asyncio.Condition()

    def apply(self, change: Replaced[Json] | Changed[Json] | Removed[Json]) -> None:
        match change:
            case Replaced(items, version):
                self.names = {item["metadata"]["name"] for item in items}
                self.log.append(f"={','.join(sorted(self.names))}@{version}")
            case Changed(item):
                name = item["metadata"]["name"]
                if name == self.fail_on:
                    self.fail_on = ""
                    raise RuntimeError("the sink has a fault")
                self.names.add(name)
                self.log.append(f"+{name}")
            case Removed(item):
                self.names.discard(item["metadata"]["name"])
                self.log.append(f"-{item['metadata']['name']}")


class Bench:
    """A reflector under test, with its time in the test's hands."""

    def __init__(self, api: ScriptedApi, client: KubeClient, **options: Any) -> None:
        self.api = api
        self.view = View()
        self.delays: list[float] = []
        self.now = 0.0
        self.reflector: Reflector[Json] = Reflector(
            client,
            "v1",
            "Pod",
            self.view,
            options.pop("decode", decode_json),
            backoff=BACKOFF,
            sleep=self._sleep,
            random=lambda: 0.5,
            clock=lambda: self.now,
            **options,
        )

    async def _sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    async def until_holding(self) -> None:
        """The script is used up and the last watch is open."""
        await until(lambda: not self.api.watches and not self.api.answers and self.api.open_watches == 1)
        await self.api.holding.wait()
        await until(lambda: self.reflector.stats.watches > 0)


@asynccontextmanager
async def bench(*answers: Answer, watches: tuple[Answer, ...] = (), **options: Any) -> AsyncIterator[Bench]:
    before = asyncio.all_tasks()
    async with scripted_api() as api, scripted_client(api, timeout=5) as client:
        api.answers += answers
        api.watches += watches
        made = Bench(api, client, **options)
        task = asyncio.create_task(made.reflector.run())
        try:
            yield made
            assert not task.done(), "run() ended"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await until(lambda: api.open_watches == 0)
    await until(lambda: asyncio.all_tasks() <= before)


async def test_list_then_watch() -> None:
    changes = Answer(lines=[event("ADDED", "c", 6), event("MODIFIED", "a", 7), event("DELETED", "b", 8)], then="hold")
    async with bench(pods(5, "a", "b"), watches=(changes,)) as b:
        await until(lambda: len(b.view.log) == 4)
        assert b.view.log == ["=a,b@5", "+c", "+a", "-b"]
        assert b.reflector.synced.is_set()
        watch = b.api.asked[1]
        assert watch.query == {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": "5",
            "timeoutSeconds": "270",
        }
        assert b.delays == []
        assert b.reflector.stats.events == 3


async def test_pages_and_selectors() -> None:
    async with bench(
        pods(5, "a", token="t"), pods(5, "b"), namespace="n", label_selector="x=y", field_selector="f=g", page_size=1
    ) as b:
        await b.until_holding()
        assert b.view.log == ["=a,b@5"]
        selectors = {"labelSelector": "x=y", "fieldSelector": "f=g"}
        assert b.api.asked[0].query == {**selectors, "limit": "1"}
        assert b.api.asked[1].query == {**selectors, "limit": "1", "continue": "t"}
        assert b.api.asked[2].query.items() >= selectors.items()
        assert {asked.path for asked in b.api.asked} == {"/api/v1/namespaces/n/pods"}


async def test_a_watch_that_ends_is_resumed_after_the_last_event_or_bookmark() -> None:
    async with bench(
        pods(5),
        watches=(Answer(lines=[event("ADDED", "a", 6)]), Answer(lines=[bookmark(9)]), Answer(then="hold")),
    ) as b:
        await b.until_holding()
        assert [a.query["resourceVersion"] for a in b.api.asked if a.is_watch] == ["5", "6", "9"]
        assert b.delays == []
        assert (b.reflector.stats.lists, b.reflector.stats.bookmarks) == (1, 1)


@pytest.mark.parametrize(
    "expired",
    [
        Answer(lines=[bookmark(6), GONE], then="hold"),
        Answer(lines=[bookmark(6), GONE, event("ADDED", "never", 7)]),
    ],
)
async def test_gone_in_a_watch_lists_again(expired: Answer) -> None:
    async with bench(pods(5, "a", "b"), pods(20, "b"), watches=(expired, Answer(then="hold"))) as b:
        await b.until_holding()
        assert b.view.log == ["=a,b@5", "=b@20"]
        assert b.delays == []  # the watch was of use before
        assert b.reflector.stats.expired == 1


async def test_gone_as_a_status_lists_again_after_a_pause() -> None:
    async with bench(
        pods(5, "a"),
        pods(20),
        pods(30),
        watches=(
            Answer(410, status(410, "Expired")),
            Answer(lines=[GONE]),
            Answer(then="hold"),
        ),
    ) as b:
        await b.until_holding()
        assert b.view.log == ["=a@5", "=@20", "=@30"]
        assert b.delays == [0.5, 1.0]  # or it would list in a circle
        assert b.reflector.last_error is None


async def test_a_server_that_closes_at_once_is_not_hammered() -> None:
    async with bench(pods(5), watches=(*(Answer(lines=()) for _ in range(6)), Answer(then="hold"))) as b:
        await b.until_holding()
        assert b.delays == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
        assert b.reflector.stats.lists == 1


async def test_progress_resets_the_backoff() -> None:
    async with bench(
        pods(5),
        watches=(Answer(), Answer(), Answer(lines=[bookmark(6)]), Answer(), Answer(then="hold")),
    ) as b:
        await b.until_holding()
        assert b.delays == [0.5, 1.0, 0.5]


async def test_the_same_version_again_is_no_progress() -> None:
    async with bench(pods(5), watches=(Answer(), Answer(lines=[bookmark(5)]), Answer(then="hold"))) as b:
        await b.until_holding()
        assert b.delays == [0.5, 1.0]


async def test_a_long_silent_watch_counts_as_progress() -> None:
    end = asyncio.Event()
    async with bench(pods(5), watches=(Answer(), Answer(then="hold", hold_until=end))) as b:
        await until(lambda: b.reflector.stats.watches == 2)
        b.now += SETTLED_SECONDS
        end.set()
        await until(lambda: b.reflector.stats.watches == 3)
        assert b.delays == [0.5]


async def test_half_a_line_is_not_an_event() -> None:
    whole = msgspec.json.encode(event("ADDED", "a", 6)) + b"\n"
    half = msgspec.json.encode(event("ADDED", "b", 7))
    async with bench(
        pods(5), watches=(Answer(lines=[whole, half[:20]]), Answer(lines=[whole, half]), Answer(then="hold"))
    ) as b:
        await b.until_holding()
        assert b.view.log == ["=@5", "+a", "+a"]
        assert [a.query["resourceVersion"] for a in b.api.asked if a.is_watch] == ["5", "6", "6"]
        assert b.reflector.stats.lists == 1


async def test_an_event_in_pieces_and_several_in_one_piece() -> None:
    first, second, third = (msgspec.json.encode(event("ADDED", name, 6)) for name in ("a", "b", "c"))
    pieces = [first[:10], first[10:] + b"\n\n" + second + b"\n" + third[:5], third[5:], b"\n"]
    async with bench(pods(5), watches=(Answer(lines=pieces, then="hold"),)) as b:
        await until(lambda: len(b.view.log) == 4)
        assert b.view.log == ["=@5", "+a", "+b", "+c"]


async def test_a_cut_connection_resumes() -> None:
    async with bench(pods(5), watches=(Answer(lines=[event("ADDED", "a", 6)], then="abort"), Answer(then="hold"))) as b:
        await b.until_holding()
        assert b.view.log == ["=@5", "+a"]
        assert b.reflector.stats.lists == 1
        assert b.api.asked[-1].query["resourceVersion"] == "6"
        assert b.delays == [0.5]


@pytest.mark.parametrize("garbage", [b"<html>\n", b'{"type": "\xff", "object": {}}\n', b'{"type": "ADDED"}\n'])
async def test_garbage_lists_again(garbage: bytes) -> None:
    async with bench(pods(5), pods(6, "a"), watches=(Answer(lines=[garbage]), Answer(then="hold"))) as b:
        await b.until_holding()
        assert b.view.log == ["=@5", "=a@6"]
        assert b.delays == [0.5]


async def test_an_error_event_other_than_gone_lists_again() -> None:
    error = {"type": "ERROR", "object": status(500, "InternalError", "etcd is away")}
    async with bench(pods(5), pods(6), watches=(Answer(lines=[error]), Answer(then="hold"))) as b:
        await b.until_holding()
        assert b.view.log == ["=@5", "=@6"]
        assert b.reflector.stats.failures == 1


async def test_retry_after_is_kept() -> None:
    busy = Answer(429, status(429, "TooManyRequests"), {"Retry-After": "7"})
    async with bench(busy, pods(5)) as b:
        await b.until_holding()
        assert b.delays == [7.0]
        assert b.view.log == ["=@5"]


@pytest.mark.parametrize(
    "answer, error",
    [
        (Answer(403, status(403, "Forbidden", name="", kind="pods")), ApiStatusError),
        (Answer(404, "404 page not found"), NotServed),
        (Answer(200, "<html>"), BadAnswer),
        (Answer(200, {"metadata": {}, "items": []}), BadAnswer),
        (Answer(then="abort"), Unreachable),
    ],
)
async def test_a_failing_list_is_tried_again(answer: Answer, error: type[Exception]) -> None:
    gate = asyncio.Event()
    good = pods(5, "a")
    good.wait = gate
    answers = [answer] * (2 if answer.then == "abort" else 1)  # aiohttp tries a GET twice
    async with bench(*answers, good) as b:
        await until(lambda: b.reflector.stats.failures == 1)
        assert isinstance(b.reflector.last_error, error)
        assert b.reflector.last_contact is None or error is BadAnswer
        assert not b.reflector.synced.is_set()
        gate.set()
        await b.until_holding()
        assert b.view.names == {"a"}
        assert b.reflector.last_error is None


async def test_an_object_that_cannot_be_decoded_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def decode(raw: msgspec.Raw) -> Json:
        obj = decode_json(raw)
        if obj["metadata"]["name"].startswith("bad"):
            raise ValueError("has a bad name")
        return obj

    changes = Answer(lines=[event("ADDED", "bad2", 6), event("ADDED", "c", 7)], then="hold")
    async with bench(pods(5, "a", "bad1", "b"), watches=(changes,), decode=decode) as b:
        await until(lambda: len(b.view.log) == 2)
        assert b.view.log == ["=a,b@5", "+c"]
        assert b.reflector.stats.undecodable == 2
        assert "n/bad1 cannot be read and is left out: has a bad name" in caplog.text


async def test_a_faulty_sink_gets_everything_again(caplog: pytest.LogCaptureFixture) -> None:
    changes = Answer(lines=[event("ADDED", "b", 6), event("ADDED", "c", 7)])
    async with bench(pods(5, "a"), watches=(changes, Answer(then="hold"))) as b:
        b.view.fail_on = "b"
        b.api.answers.append(pods(7, "a", "b", "c"))
        await b.until_holding()
        assert b.view.log == ["=a@5", "=a,b,c@7"]
        assert b.reflector.stats.sink_errors == 1


async def test_silence_beyond_the_timeout_is_a_broken_watch() -> None:
    async with bench(pods(5), watches=(Answer(then="hold"),), watch_seconds=(0, 0), grace=0.05) as b:
        await until(lambda: b.reflector.stats.watches >= 2)
        assert b.reflector.stats.lists == 1


async def test_contact_is_noted() -> None:
    async with bench(pods(5), watches=(Answer(lines=[bookmark(6)], then="hold"),)) as b:
        b.now = 100.0
        await b.until_holding()
        await until(lambda: b.reflector.stats.bookmarks == 1)
        assert b.reflector.last_contact == 100.0


def test_the_delay_is_bounded() -> None:
    def top() -> float:
        return 0.999

    delays: Iterator[float] = (BACKOFF.delay(attempt, top) for attempt in (0, 1, 3, 50, 5000))
    assert [round(delay, 1) for delay in delays] == [1.0, 2.0, 8.0, 8.0, 8.0]
    assert BACKOFF.delay(0, lambda: 0.0, at_least=3.0) == 3.0
