"""What controllers know of a cluster that is somewhere else."""

from __future__ import annotations

from sim.model.api import Event, Json
from sim.model.cache import Cache

POD = ("v1", "Pod")


def pod(name: str, version: int, *, uid: str = "", node: str = "", owner: str = "") -> Json:
    metadata: Json = {"name": name, "namespace": "default", "uid": uid or name, "resourceVersion": str(version)}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node}}


def names(found: object) -> list[str]:
    assert isinstance(found, list)
    return [entry["metadata"]["name"] for entry in found]


def test_the_answer_to_a_write_and_the_watch_tell_of_it_once() -> None:
    cache = Cache([POD])
    made = pod("a", 5)
    assert cache.put(made) == [Event(POD, made, None)]
    assert cache.put(pod("a", 5)) == []
    assert cache.put(pod("a", 4)) == []
    assert cache.get(*POD, "default", "a") is made


def test_a_deleted_object_does_not_come_back_from_an_old_answer() -> None:
    cache = Cache([POD])
    cache.put(pod("a", 5))
    assert [event.obj for event in cache.remove(pod("a", 8))] == [None]
    assert cache.put(pod("a", 7)) == []
    assert cache.get(*POD, "default", "a") is None
    assert cache.remove(pod("a", 8)) == []


def test_another_object_of_the_same_name_is_a_deletion_and_an_addition() -> None:
    cache = Cache([POD])
    first, second = pod("a", 5, uid="1"), pod("a", 9, uid="2")
    cache.put(first)
    assert cache.put(second) == [Event(POD, None, first), Event(POD, second, None)]
    assert cache.remove(pod("a", 10, uid="1")) == []
    assert cache.get(*POD, "default", "a") is second


def test_a_list_takes_away_what_it_lacks_but_not_what_is_newer() -> None:
    cache = Cache([POD])
    for entry in (pod("old", 3), pod("kept", 4), pod("new", 12)):
        cache.put(entry)
    events = cache.replace(POD, [pod("kept", 4), pod("more", 9)], 10)
    assert [(event.current["metadata"]["name"], event.obj is None) for event in events] == [
        ("old", True),
        ("more", False),
    ]
    assert names(cache.list(*POD)) == ["kept", "more", "new"]


def test_indexes_follow_changes() -> None:
    cache = Cache([POD])
    cache.put(pod("a", 1, owner="x"))
    cache.put(pod("b", 2, owner="x", node="n"))
    cache.put(pod("a", 3, owner="y", node="n"))
    assert names(cache.owned_by("x", *POD)) == ["b"]
    assert names(cache.owned_by("y", *POD)) == ["a"]
    assert names(cache.pods_on("n")) == ["a", "b"]
    cache.remove(pod("b", 4))
    assert names(cache.pods_on("n")) == ["a"]
    assert names(cache.owned_by("x", *POD)) == []
