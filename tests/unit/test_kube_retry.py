"""Bounded retries."""

from __future__ import annotations

import pytest

from gpufleet.kube.errors import AccessError, ApiStatusError, KubeError, NotServed, Unreachable
from gpufleet.kube.retry import Backoff, RetryPolicy, call_with_retries

POLICY = RetryPolicy(attempts=4, backoff=Backoff(base=1.0, cap=3.0), longest_delay=10.0)


class Script:
    """Fails with each error in turn, then returns "done"; notes the delays in between."""

    def __init__(self, *errors: KubeError) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.delays: list[float] = []

    async def call(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)

    async def run(self, policy: RetryPolicy = POLICY) -> str:
        return await call_with_retries(self.call, policy, sleep=self.sleep, random=lambda: 0.5)


BUSY = ApiStatusError(429, "TooManyRequests", retry_after=2.0)
DOWN = ApiStatusError(503, "ServiceUnavailable")
AWAY = Unreachable("reset")


async def test_nothing_to_retry() -> None:
    script = Script()
    assert await script.run() == "done"
    assert (script.calls, script.delays) == (1, [])


async def test_delays_grow_up_to_the_cap_and_keep_what_the_server_asks() -> None:
    script = Script(DOWN, BUSY, AWAY)
    assert await script.run() == "done"
    assert script.delays == [0.5, 2.0, 1.5]


async def test_the_last_error_is_raised() -> None:
    script = Script(*[DOWN] * 3, BUSY, DOWN)
    with pytest.raises(ApiStatusError) as caught:
        await script.run()
    assert caught.value is BUSY
    assert script.calls == 4


@pytest.mark.parametrize(
    "error",
    [
        ApiStatusError(409, "Conflict"),
        ApiStatusError(404, "NotFound"),
        ApiStatusError(422, "Invalid"),
        ApiStatusError(500, "", "field not declared in schema"),
        ApiStatusError(403, "Forbidden"),
        ApiStatusError(501, "NotImplemented"),
        AccessError("c", "no"),
        NotServed("c", "v1", "X"),
    ],
)
async def test_what_cannot_help_is_not_tried(error: KubeError) -> None:
    script = Script(error)
    with pytest.raises(type(error)):
        await script.run()
    assert script.calls == 1


async def test_a_caller_may_exclude_unknown_outcomes() -> None:
    script = Script(AWAY)
    with pytest.raises(Unreachable):
        await script.run(RetryPolicy(retry_unreachable=False))
    assert script.calls == 1


async def test_a_long_wait_is_the_callers_affair() -> None:
    script = Script(ApiStatusError(429, "TooManyRequests", retry_after=11.0))
    with pytest.raises(ApiStatusError):
        await script.run()
    assert script.delays == []
