"""`plan` on documents: what they leave open is decided as the design says."""

from __future__ import annotations

from typing import Any

import pytest

from gpufleet.wire.documents import dump_placement, parse_text
from gpufleet.wire.yaml import dump
from sim.plan import plan
from tests.support.plans import LLM, Json, cluster, codes, deployment, planned, policy, shares


def placement(replicas: int, verdict: str = "Scheduled", workload: str = LLM, **assignments: Any) -> Json:
    """`c1=2`, or `c1=(2, 1)` with 1 of 2 bound."""
    parts = []
    for name, value in assignments.items():
        count, bound = value if isinstance(value, tuple) else (value, None)
        parts.append({"cluster": name, "replicas": count, **({} if bound is None else {"bound": bound})})
    return {
        "apiVersion": "gpufleet.io/v1alpha1",
        "kind": "Placement",
        "workload": workload,
        "verdict": verdict,
        "replicas": replicas,
        "assignments": parts,
    }


def test_groups_overflow_in_their_order() -> None:
    fleet = (cluster("a1", 4), cluster("a2", 2), cluster("b1", 8, 2), policy(["a1", "a2"], ["b1"]))
    for replicas, expected in ((3, {"a1": 2, "a2": 1}), (6, {"a1": 4, "a2": 2}), (9, {"a1": 4, "a2": 2, "b1": 3})):
        found = planned(*fleet, deployment(replicas))[LLM]
        assert (found.verdict, shares(found)) == ("Scheduled", expected)


def test_placements_are_ordered_by_workload_and_say_zeros() -> None:
    found = plan(parse_text(dump([cluster("c1", 8), policy(["c1"]), deployment(9, "z"), deployment(0, "a")])))
    assert [p.workload for p in found] == ["test/Deployment/a", "test/Deployment/z"]
    document = dump_placement(found[0])
    assert (document["verdict"], document["replicas"], document["placed"], document["unplaced"]) == (
        "Scheduled",
        0,
        0,
        0,
    )
    assert document["assignments"] == []
    assert (found[1].verdict, found[1].placed, found[1].unplaced) == ("PartiallyScheduled", 8, 1)


def test_without_a_policy_nothing_is_placed() -> None:
    found = planned(cluster("c1", 8), deployment(3))[LLM]
    assert (found.verdict, found.replicas, found.placed, codes(found)) == ("Unschedulable", 3, 0, {"NoMatchingPolicy"})


def test_without_clusters_nothing_is_placed() -> None:
    found = planned(policy(), deployment(3))[LLM]
    assert (found.verdict, found.placed, codes(found)) == ("Unschedulable", 0, {"NoClusters"})


@pytest.mark.parametrize("division", [{}, {"replicaSchedulingType": "Duplicated"}])
def test_every_copy_of_a_duplicated_workload_counts(division: Json) -> None:
    found = planned(cluster("c1", 1), cluster("c2", 8), policy(division=division), deployment(3))[LLM]
    assert (found.verdict, found.replicas, found.placed, found.unplaced) == ("Scheduled", 6, 6, 0)
    assert shares(found) == {"c1": 3, "c2": 3}


def test_an_unreachable_cluster_has_no_capacity() -> None:
    found = planned(cluster("c1", 8, health="Unreachable"), cluster("c2", 2), policy(["c1"], ["c2"]), deployment(3))
    assert (found[LLM].verdict, shares(found[LLM])) == ("PartiallyScheduled", {"c2": 2})
    assert "ClusterUnreachable" in codes(found[LLM])


def test_an_unreachable_cluster_has_lost_its_replicas() -> None:
    lost = cluster("c1", full=1, health="Unreachable")
    given = placement(3, c1=2, c2=1)
    found = planned(lost, cluster("c2", 7), policy(["c1"], ["c2"]), deployment(3), given)[LLM]
    assert (found.verdict, shares(found)) == ("Scheduled", {"c2": 3})


def test_free_excludes_what_is_bound() -> None:
    # 4 of 8 are bound and 2 are free: room for 6 in all.
    given = placement(4, c1=4)
    found = planned(cluster("c1", 2), policy(["c1"]), deployment(9), given)[LLM]
    assert (shares(found), found.unplaced) == ({"c1": 6}, 3)


def test_what_is_not_bound_yet_has_its_room_kept() -> None:
    # 2 of the 4 are still on their way, so of 6 free ones another workload gets 4.
    given = placement(4, c1=(4, 2))
    found = planned(cluster("c1", 6), policy(["c1"]), deployment(4), deployment(9, "other"), given)
    assert shares(found[LLM]) == {"c1": 4}
    assert shares(found["test/Deployment/other"]) == {"c1": 4}


def test_what_is_placed_is_not_moved_although_a_higher_group_has_room() -> None:
    fleet = (cluster("a", 8), cluster("b", 4), policy(["a"], ["b"]))
    assert shares(planned(*fleet, deployment(3), placement(3, b=3))[LLM]) == {"b": 3}
    # A replica change pours anew.
    assert shares(planned(*fleet, deployment(4), placement(3, b=3))[LLM]) == {"a": 4}


def test_what_was_left_over_is_placed_and_the_rest_stays() -> None:
    given = placement(5, "PartiallyScheduled", b=3)
    found = planned(cluster("a", 1), cluster("b", 8), policy(["a"], ["b"]), deployment(5), given)[LLM]
    assert (found.verdict, shares(found)) == ("Scheduled", {"a": 1, "b": 4})


def test_scaling_in_leaves_the_lowest_group_first() -> None:
    fleet = (cluster("a1", 0), cluster("a2", 0), cluster("b1", 7), policy(["a1", "a2"], ["b1"]))
    given = placement(9, a1=4, a2=2, b1=3)
    assert shares(planned(*fleet, deployment(7), given)[LLM]) == {"a1": 4, "a2": 2, "b1": 1}
    assert shares(planned(*fleet, deployment(5), given)[LLM]) == {"a1": 3, "a2": 2}


@pytest.mark.parametrize("verdict", ["Finished", "Failed", "GivenUp"])
def test_what_has_come_to_its_end_stays_so(verdict: str) -> None:
    given = placement(3, verdict, c1=0)
    found = planned(cluster("c1", 8), policy(["c1"]), deployment(3), given)[LLM]
    assert found.verdict == verdict


def test_a_placement_without_its_workload_stays_as_it_is() -> None:
    found = planned(cluster("c1", 8), policy(["c1"]), deployment(2, "other"), placement(3, c2=3))
    assert (found[LLM].verdict, shares(found[LLM])) == ("Scheduled", {"c2": 3})
    assert shares(found["test/Deployment/other"]) == {"c1": 2}


def test_output_is_input() -> None:
    fleet = (cluster("a1", 4), cluster("a2", 2), cluster("b1", 8, 2), policy(["a1", "a2"], ["b1"]), deployment(9))
    first = planned(*fleet)[LLM]
    # Nothing is bound yet, so `free` still has the room.
    document = dump_placement(first, dict.fromkeys(shares(first), 0), slots=True)
    again = planned(*fleet, document)[LLM]
    assert dump_placement(again) == dump_placement(first)


def test_the_same_documents_give_the_same_placements() -> None:
    documents = [cluster(f"c{i}", i, 8 - i) for i in range(1, 8)]
    documents.append(policy([f"c{i}" for i in range(1, 5)], [f"c{i}" for i in range(5, 8)]))
    documents += [deployment(i, f"w{i}", gpu=1 + i % 3, uid=f"u{i}") for i in range(12)]
    first, second = planned(*documents), planned(*documents)
    assert {k: dump_placement(p) for k, p in first.items()} == {k: dump_placement(p) for k, p in second.items()}


def test_workloads_are_placed_in_the_order_of_priority_then_of_the_documents() -> None:
    urgent = deployment(6, "urgent")
    urgent["spec"]["template"]["spec"]["priorityClassName"] = "high"
    rank = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "high"},
        "value": 1000,
    }
    found = planned(cluster("c1", 8), policy(["c1"]), deployment(2, "b"), deployment(6, "a"), urgent, rank)
    assert shares(found["test/Deployment/urgent"]) == {"c1": 6}
    assert shares(found["test/Deployment/b"]) == {"c1": 2}
    assert found["test/Deployment/a"].verdict == "Unschedulable"


def test_a_statefulset_is_placed_whole_or_not_at_all() -> None:
    found = planned(cluster("c1", 4), policy(["c1"]), deployment(6, kind="StatefulSet"))["test/StatefulSet/llm"]
    assert (found.verdict, found.placed, found.unplaced) == ("Unschedulable", 0, 6)


def test_a_group_that_does_not_take_all_says_so() -> None:
    aggregated = {"replicaSchedulingType": "Divided", "replicaDivisionPreference": "Aggregated"}
    fleet = (cluster("c1", 2), cluster("c2", 5), policy(["c1"], ["c2"], division=aggregated))
    for replicas in (5, 6):
        found = planned(*fleet, deployment(replicas))[LLM]
        told = {reason.cluster: reason.message for reason in found.reasons}
        assert shares(found) == {"c2": 5}
        assert told["c1"] == "has room, but its group does not take all replicas"
