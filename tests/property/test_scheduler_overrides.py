"""Whatever is overridden: the dispatcher writes what the scheduler meant, or the cluster takes nothing."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from gpufleet.model import kinds
from gpufleet.model.overrides import (
    ArgumentOverrider,
    ImageOverrider,
    ImagePart,
    LabelOverrider,
    Operator,
    OverridePolicy,
    OverrideRule,
    PatchOperation,
)
from gpufleet.model.patch import PatchError
from gpufleet.model.policy import ClusterAffinity, DivisionType
from services.dispatcher.core.render import render
from services.scheduler.core.events import PolicyChanged
from services.scheduler.core.overriders import patches
from tests.support import manifests
from tests.support.scheduling import World, policy

X = "test/Deployment/x"
operator = st.sampled_from(Operator)
words = st.sampled_from(["a", "b", "app", "c/d"])
target = st.sampled_from([None, ClusterAffinity(cluster_names=("c1",)), ClusterAffinity(exclude=("c1",))])
paths = st.sampled_from(
    [
        "/spec/paused",
        "/spec/replicas",
        "/spec/template/spec/nodeSelector",
        "/spec/template/spec/nodeSelector/pool",
        "/spec/template/spec/containers/-",
        "/spec/template/spec/containers/1",
        "/spec/no/where",
        "/metadata/labels/app",
    ]
)
values = st.sampled_from([1, True, "x", {"name": "side", "image": "side"}])
rule = st.builds(
    OverrideRule,
    target=target,
    images=st.lists(
        st.builds(ImageOverrider, st.sampled_from(ImagePart), operator, st.sampled_from(["x", "1.2"])), max_size=2
    ).map(tuple),
    args=st.lists(
        st.builds(ArgumentOverrider, st.sampled_from(["main", "other"]), operator, st.just(("-v",))), max_size=2
    ).map(tuple),
    labels=st.lists(st.builds(LabelOverrider, operator, st.tuples(st.tuples(words, words))), max_size=2).map(tuple),
    plaintext=st.lists(st.builds(PatchOperation, paths, operator, values), max_size=2).map(tuple),
)


@given(st.lists(rule, min_size=1, max_size=3).map(tuple))
def test_the_object_is_the_overridden_one(rules: tuple[OverrideRule, ...]) -> None:
    manifest = manifests.deployment(4)
    kept = copy.deepcopy(manifest)
    world = World()
    world.clusters(c1=4, c2=4)
    world.feed(PolicyChanged(OverridePolicy("o", "test", rules)))
    world.submit(kinds.interpret(manifest), policy(division=DivisionType.DUPLICATED))
    assert manifest == kept
    for cluster in ("c1", "c2"):
        wanted = kinds.with_replicas(manifest, [("main", 4)])
        mine = [r for r in rules if r.target is None or (cluster == "c1") is bool(r.target.cluster_names)]
        try:
            for one in mine:
                list(patches(wanted, one))
        except PatchError:
            assert world.codes(X)[cluster] == "OverrideFailed"
            assert cluster not in world.assigned(X)
            continue
        obj = render(world.assignment(X, cluster))
        metadata = wanted.get("metadata", {})
        assert obj["spec"].get("replicas") == wanted["spec"].get("replicas")
        assert {k: v for k, v in obj["spec"].items() if k != "template"} == {
            k: v for k, v in wanted["spec"].items() if k != "template"
        }
        assert obj["spec"]["template"]["spec"] == wanted["spec"]["template"]["spec"]
        assert (metadata.get("labels") or {}).items() <= obj["metadata"]["labels"].items()
