"""Faults that a simulated API server shows on demand: errors, slowness, dropped watches, absence.

All of it is deterministic: a rule hits the next N requests, or a share of them by counting; only a rule with a seed
draws lots.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Literal

from sim.api.errors import ApiError

Json = dict[str, Any]
When = Literal["before", "after", "lost"]

_REASONS = {
    429: ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
    500: ("InternalError", "Internal error occurred: injected fault"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "Timeout: request did not complete within the allotted timeout"),
}


@dataclass(slots=True)
class Rule:
    """Requests that fail.

    `code` is the answer (429, 500, 503, 504). Of the requests that match `verbs` and `resources` (empty: all) it hits
    the next `remaining` ones (None: no end) or the share `probability` of them. `when` says whether the request is
    refused `before` it has an effect, answered with the error `after` it has taken effect, or done and its answer
    `lost` with the connection.
    """

    code: int = 500
    remaining: int | None = None
    probability: float = 1.0
    seed: int | None = None
    retry_after: int = 1
    verbs: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    when: When = "before"
    _share: float = 0.0
    _lots: random.Random | None = None

    def hits(self, verb: str, resource: str) -> bool:
        """Whether this request fails; counts it."""
        if (self.verbs and verb not in self.verbs) or (self.resources and resource not in self.resources):
            return False
        if self.remaining == 0:
            return False
        if self.seed is not None:
            self._lots = self._lots or random.Random(self.seed)
            if self._lots.random() >= self.probability:
                return False
        else:
            self._share += self.probability
            if self._share < 1.0:
                return False
            self._share -= 1.0
        if self.remaining is not None:
            self.remaining -= 1
        return True

    def error(self) -> ApiError:
        """The answer to a request that is hit."""
        reason, message = _REASONS.get(self.code, ("", "injected fault"))
        details = {"retryAfterSeconds": self.retry_after} if self.code in {429, 503, 504} else {}
        return ApiError(self.code, reason, message, details)


@dataclass(slots=True)
class Faults:
    """What is wrong with one cluster's API now."""

    gone: bool = False
    """Connections are closed without an answer."""
    delay: float = 0.0
    """Seconds that each request waits first."""
    rules: list[Rule] = field(default_factory=list)

    def hit(self, verb: str, resource: str) -> Rule | None:
        """The first rule that hits a request."""
        hit = next((rule for rule in self.rules if rule.hits(verb, resource)), None)
        if hit is not None:
            self.rules = [rule for rule in self.rules if rule.remaining != 0]
        return hit

    def fail_next(self, count: int, code: int = 500, **limits: Any) -> None:
        """Fail the next `count` requests; `limits` are fields of `Rule`."""
        self.rules.append(Rule(code=code, remaining=count, **limits))

    def clear(self) -> None:
        """Nothing is wrong any more."""
        self.gone, self.delay, self.rules = False, 0.0, []


def from_document(document: Json) -> Faults:
    """Faults from `{"gone": false, "delayMilliseconds": 0, "rules": [{"code": 429, "next": 5, ...}]}`.

    Keys of a rule: code, next, probability, seed, retryAfterSeconds, verbs, resources, when. ValueError if a key is
    unknown or a value makes no sense.
    """
    _only(document, {"gone", "delayMilliseconds", "rules", "dropWatches", "expireWatches"}, "faults")
    delay = document.get("delayMilliseconds", 0)
    if not isinstance(delay, (int, float)) or delay < 0:
        raise ValueError(f"delayMilliseconds: must be a number that is not negative, got {delay!r}")
    rules = document.get("rules", [])
    if not isinstance(rules, list):
        raise ValueError("rules: must be a list")
    return Faults(bool(document.get("gone", False)), delay / 1000, [_rule(rule, i) for i, rule in enumerate(rules)])


def _only(document: Any, known: set[str], where: str) -> None:
    if not isinstance(document, dict):
        raise ValueError(f"{where}: must be an object")
    unknown = sorted(document.keys() - known)
    if unknown:
        raise ValueError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")


def _rule(document: Json, index: int) -> Rule:
    where = f"rules[{index}]"
    known = {"code", "next", "probability", "seed", "retryAfterSeconds", "verbs", "resources", "when"}
    _only(document, known, where)
    code, probability = document.get("code", 500), document.get("probability", 1.0)
    if not isinstance(code, int) or not 400 <= code < 600:
        raise ValueError(f"{where}.code: must be an HTTP status from 400 to 599, got {code!r}")
    if not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
        raise ValueError(f"{where}.probability: must be from 0 to 1, got {probability!r}")
    if document.get("when", "before") not in {"before", "after", "lost"}:
        raise ValueError(f"{where}.when: must be before, after or lost, got {document['when']!r}")
    return Rule(
        code,
        document.get("next"),
        float(probability),
        document.get("seed"),
        int(document.get("retryAfterSeconds", 1)),
        frozenset(document.get("verbs") or ()),
        frozenset(document.get("resources") or ()),
        document.get("when", "before"),
    )


def to_document(faults: Faults) -> Json:
    """The reverse of `from_document`."""
    rules = []
    for rule in faults.rules:
        document: Json = {"code": rule.code, "probability": rule.probability, "when": rule.when}
        document["retryAfterSeconds"] = rule.retry_after
        if rule.remaining is not None:
            document["next"] = rule.remaining
        if rule.seed is not None:
            document["seed"] = rule.seed
        for key, values in (("verbs", rule.verbs), ("resources", rule.resources)):
            if values:
                document[key] = sorted(values)
        rules.append(document)
    return {"gone": faults.gone, "delayMilliseconds": round(faults.delay * 1000, 3), "rules": rules}
