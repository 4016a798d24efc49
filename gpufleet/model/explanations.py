"""What verdicts and reason codes mean, and what helps: one text for `docs/reasons.md` and whoever shows a code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpufleet.model.reasons import Code, Verdict


@dataclass(frozen=True, slots=True)
class Explanation:
    """``cause``: what is the case. ``remedy``: what somebody can do about it, or what happens by itself."""

    cause: str
    remedy: str


VERDICTS: Mapping[Verdict, str] = {
    Verdict.SCHEDULED: "Every replica has a cluster.",
    Verdict.PARTIALLY_SCHEDULED: "Some replicas have a cluster; the others are tried again when capacity appears.",
    Verdict.UNSCHEDULABLE: "It was tried and nothing is placed. It is tried again when something changes that matters.",
    Verdict.QUEUED: "It waits for its turn: behind others in a blocking queue, for its quota, or after it lost its "
    "place or an attempt failed, until there is room and the back-off is over.",
    Verdict.SUSPENDED: "The policy suspends scheduling, or waits for an override policy; nothing new is placed.",
    Verdict.FINISHED: "Every copy has succeeded. The room that was held for it is free again.",
    Verdict.FAILED: "The job failed through its own containers, and its policy does not send such jobs elsewhere.",
    Verdict.GIVEN_UP: "The job failed in one cluster after another until its attempts were used up, or nothing of it "
    "was placed within the queueTimeout of its policy.",
    Verdict.DELETING: "Its copies are being removed; it is forgotten when every cluster reports its copy gone.",
    Verdict.ORPHANED: "Its submission is missing from the log, but it was placed once. Its copies stay as they are.",
}

REASONS: Mapping[Code, Explanation] = {
    Code.NO_MATCHING_POLICY: Explanation(
        "No PropagationPolicy of the workload's namespace and no ClusterPropagationPolicy selects it. What is placed "
        "already stays.",
        "Apply a policy whose resourceSelectors name its apiVersion and kind, and its name or labels where they are "
        "given.",
    ),
    Code.POLICY_PENDING: Explanation(
        "The policy was changed, but its activationPreference is Lazy: the workload goes on under the edition that it "
        "was decided by.",
        "None needed: the new edition counts when the workload is submitted with a change, or scaled. To apply it at "
        "once, take activationPreference out of the policy.",
    ),
    Code.TRAVELS_ALONG: Explanation(
        "It has no pods of its own, and the pods of a workload whose policy has propagateDeps name it: it goes to the "
        "clusters of that workload.",
        "None needed: it leaves a cluster with the last workload that needs it there.",
    ),
    Code.OTHER_SCHEDULER: Explanation(
        "The policy's schedulerName is not this scheduler's (setting scheduler_name). Nothing is placed by it, and "
        "what is placed stays as it is.",
        "Write schedulerName: default-scheduler, or leave it out.",
    ),
    Code.NO_CLUSTERS: Explanation(
        "No cluster is registered, or the policy's affinity selects none of them.",
        "Register one with `gpufleet apply -f cluster.yaml`, or correct clusterAffinity. `gpufleet get clusters -o "
        "wide` shows names and labels.",
    ),
    Code.CLUSTER_UNKNOWN: Explanation(
        "The policy names a cluster that is not registered.",
        "Correct the name in the policy, or register the cluster under it.",
    ),
    Code.CLUSTER_UNREACHABLE: Explanation(
        "The cluster's API has not answered for longer than inventory's unreachable_after, or refuses the credentials "
        "of the registration.",
        "Look at the message in `gpufleet describe CLUSTER`, then at the API server, the network and the kubeconfig. "
        "Movable replicas are placed elsewhere meanwhile.",
    ),
    Code.CLUSTER_TAINTED: Explanation(
        "The cluster's registration has a taint that the policy does not tolerate.",
        "Add the toleration to the policy's clusterTolerations, or take the taint off the Cluster document and apply "
        "that.",
    ),
    Code.CLUSTER_AVOIDED: Explanation(
        "Replicas were taken back from this cluster a while ago, because pods stayed pending or the job failed there.",
        "None needed: it is tried again when the rescheduler's cool_down is over. The message says how long that takes "
        "and why it was avoided.",
    ),
    Code.INVENTORY_STALE: Explanation(
        "The last snapshot of the cluster is older than the scheduler's stale_after (three heartbeats), so its free "
        "capacity is not known.",
        "Look at inventory with `gpufleet doctor`; new replicas are placed as soon as there is a snapshot.",
    ),
    Code.INVENTORY_MISSING: Explanation(
        "The cluster is registered, but inventory has not published a snapshot of it yet.",
        "A new cluster takes some seconds. If it stays so, look whether inventory runs and what its log says about the "
        "cluster.",
    ),
    Code.API_NOT_SERVED: Explanation(
        "The cluster does not serve the workload's apiVersion and kind.",
        "Install the CRD and its operator there, or exclude the cluster in the policy. Inventory looks again every "
        "discovery_interval.",
    ),
    Code.NAMESPACE_MISSING: Explanation(
        "The workload's namespace does not exist in the cluster.",
        "Create it there, or set createNamespaces: true in the policy.",
    ),
    Code.NAMESPACE_QUOTA: Explanation(
        "A ResourceQuota of the workload's namespace in that cluster leaves less than the pods ask for. What is placed "
        "there and not created yet counts as used.",
        "Raise the ResourceQuota in the cluster, or free some of it.",
    ),
    Code.NO_MATCHING_NODES: Explanation(
        "No node, or no virtual node, has the labels that the pods select, or all such nodes have taints that the pods "
        "do not tolerate.",
        "Compare nodeSelector, node affinity and tolerations with the node classes in `gpufleet describe CLUSTER`.",
    ),
    Code.INSUFFICIENT_RESOURCES: Explanation(
        "The nodes that match have too little free. The message compares what one pod needs with the largest free "
        "block of one node: many small rests do not make room for a large pod.",
        "Wait for capacity, ask for less per pod, or let the policy mean more clusters or use elastic nodes "
        "(ecsProvision).",
    ),
    Code.NO_STOCK: Explanation(
        "Running nodes are full, and the elastic node pools that match can create no more: the provider is out of "
        "stock or the pool has reached its size.",
        "Wait for stock, raise the pool's maximum, or let the policy mean clusters in other regions.",
    ),
    Code.STOCK_NOT_TRUSTED: Explanation(
        "There is stock of a node class that matches, but nodes of it that were expected did not come: the cluster's "
        "autoscaler said that it has none, or did not bring them within the provisioning time. So for provision_retry "
        "no more of them are counted on; the message says how many there are, and until when.",
        "Look at the events of the pods and of the node pool in the cluster. It is tried again at that time, or when a "
        "node of the class comes. Meanwhile let the policy mean other clusters, or set provision_retry lower.",
    ),
    Code.NEVER_FITS: Explanation(
        "A pod (or all pods of a workload that is placed whole) would not fit even into an empty cluster with all of "
        "its stock, or would be more than its quota allows even if nobody else used it. It blocks nobody.",
        "Ask for less or for other nodes, register a cluster with larger ones, or raise the quota. Waiting does not "
        "help.",
    ),
    Code.GANG_DOES_NOT_FIT: Explanation(
        "The workload is placed whole or not at all. Its pods would fit one by one, but not together.",
        "Wait for capacity, lower the number of workers, or register a larger cluster.",
    ),
    Code.NO_UNIT_HAS_ROOM: Explanation(
        "The units of the ResourcePolicy were tried in their order, and the virtual nodes of none has enough stock of "
        "the GPU model.",
        "Wait for stock, or add a unit with another region or model to the ResourcePolicy.",
    ),
    Code.UNIT_AT_MAX: Explanation(
        "Every unit of the ResourcePolicy has as many pods in the cluster as its max, or its maxResources, allows. "
        "Pods of all workloads that the policy selects count, per combination of matchLabelKeys.",
        "Raise max or maxResources of a unit, add a unit, or wait until pods of it have gone.",
    ),
    Code.WAITING_IN_UNIT: Explanation(
        "A unit of the ResourcePolicy has no room, and whenTryNextUnits does not let the pods go on to the next unit "
        "yet: they wait for room, for its max, for the time-out, or for pods that are being deleted.",
        "Wait, make room in the unit, or choose another whenTryNextUnits.policy.",
    ),
    Code.UNIT_LABEL_MISSING: Explanation(
        "The ResourcePolicy counts pods by the labels in matchLabelKeys, and the pod template lacks one of them that "
        "no controller adds.",
        "Add the label to the pod template, or take it out of matchLabelKeys.",
    ),
    Code.HIGHER_GROUP_TOOK_ALL: Explanation(
        "The cluster belongs to a lower priority group, and the groups before it took every replica.",
        "None needed.",
    ),
    Code.WAITING_FOR_REMOVAL: Explanation(
        "An earlier copy has to be gone first: a job never has two live copies, and a deletion is not over before "
        "every cluster has confirmed it.",
        "If it takes long, look at the cluster named in the message: its API may be away, or a finalizer holds the "
        "object.",
    ),
    Code.DISPATCH_REFUSED: Explanation(
        "The cluster's API refuses the object for good, such as for an invalid field, an immutable field or a missing "
        "permission.",
        "The message is the API server's. Correct the manifest and submit it again, or grant the dispatcher the verb "
        "that it lacks.",
    ),
    Code.CONFLICT: Explanation(
        "An object of that name exists in the cluster and is not managed by this fleet's log.",
        "Delete the object there, or set conflictResolution: Overwrite in the policy.",
    ),
    Code.SUSPENDED: Explanation(
        "The policy suspends scheduling (the verdict says Suspended), or dispatching: then it is decided, but not "
        "written to the cluster.",
        "Take spec.suspension out of the policy.",
    ),
    Code.INVALID_RECORD: Explanation(
        "The last submission of the workload cannot be read. It stays as it was last decided.",
        "`gpufleet dlq list` has the record with the path of the field that is wrong; submit a correct one, or repair "
        "it with `gpufleet dlq replay`.",
    ),
    Code.FROZEN: Explanation(
        "The fleet is frozen: decisions are made and shown, and nothing is written to clusters.",
        "`gpufleet unfreeze`.",
    ),
    Code.POLICY_IGNORED: Explanation(
        "Several policies select the workload; this one does not count, because another one goes first.",
        "None needed if that is what was meant. A policy of the workload's namespace goes before a cluster-wide one, "
        "then the higher priority, the more specific selector, the first by name.",
    ),
    Code.BACKING_OFF: Explanation(
        "The job failed before and waits until its next attempt; the message says when that is. From the dispatcher: a "
        "request to the cluster failed and is made again.",
        "None needed, unless it goes on: then the message says what the cluster answers.",
    ),
    Code.ATTEMPTS_EXHAUSTED: Explanation(
        "The job failed more often than the rescheduler's max_redispatch allows.",
        "Find the cause in the job's status and logs, then submit it again, changed or with a new uid in its envelope.",
    ),
    Code.SUBMISSION_MISSING: Explanation(
        "There is a placement of the workload, but its submission is not on the log. Absence deletes nothing, so its "
        "copies stay.",
        "Submit it again; it is taken up where it is.",
    ),
    Code.JOB_FAILED: Explanation(
        "The job failed through its own containers, not through a lack of capacity or a lost node.",
        "Read the message and the logs of its pods in the cluster, and submit a corrected job.",
    ),
    Code.OVERRIDE_FAILED: Explanation(
        "An override policy that means the workload in this cluster cannot be applied to its object: a path is not "
        "there, a field is not the JSON or YAML that it should be. Nothing is written half overridden: a copy that "
        "runs there stays as it is, and no new one is placed there.",
        "Correct the override policy that the message names, or its targetCluster or resourceSelectors.",
    ),
    Code.OVERRIDES_MISSING: Explanation(
        "The policy names override policies in dependentOverrides, and not all of them are there. Nothing new is "
        "placed until they are; what runs stays.",
        "Submit the override policies, in the namespace of the policy, or take their names out of dependentOverrides.",
    ),
    Code.QUOTA_EXCEEDED: Explanation(
        "The workload's quota, or one above it in the ElasticQuotaTree, has too little left: of max, or of min for a "
        "workload that is not preemptible. The message says of what, with numbers.",
        "None needed: it is tried again as soon as something of that quota is given back. Or raise the quota, or let "
        "the label quota.scheduling.alibabacloud.com/name name another one.",
    ),
    Code.NO_QUOTA: Explanation(
        "There is an ElasticQuotaTree, and the workload counts in no leaf of it: a job whose namespace no leaf names, "
        "a label that names no leaf, or a GPU model that its quota does not have.",
        "Add the namespace to a leaf, or correct the label quota.scheduling.alibabacloud.com/name, or let the pods "
        "select nodes of a GPU model that the quota has.",
    ),
    Code.SPREAD_UNMET: Explanation(
        "Fewer clusters, regions, zones, providers or label values may take the workload than spreadConstraints want "
        "at least, and what goes to one cluster as a whole is in one of each; or, with a cluster named, that cluster "
        "has no value of what the policy spreads over.",
        "Lower minGroups, let more clusters be candidates, or write region, zones, provider or the label into the "
        "Cluster documents.",
    ),
    Code.SPREAD_CHOSE_OTHERS: Explanation(
        "The policy bounds over how many clusters, regions, zones, providers or label values a workload is spread, and "
        "others were chosen: those that have it already, those with more room, then the first by name.",
        "None needed; raise maxGroups if the cluster is to be used too.",
    ),
    Code.PREEMPTED: Explanation(
        "The workload lost pods in this cluster to another one: of higher priority, or of a quota that is guaranteed "
        "what this workload had borrowed. The message names it. It is back in the queue at its old place.",
        "None needed: it is placed again where there is room. Give it a higher priority, or a quota with a larger min, "
        "if it should not yield.",
    ),
    Code.PREEMPTS: Explanation(
        "There was no room, and the workloads that the message names yielded theirs. Its pods start when those of the "
        "victims have stopped.",
        "None needed. With preemptionPolicy: Never in its PriorityClass it would have waited.",
    ),
    Code.QUEUE_BLOCKED: Explanation(
        "The queue is a blocking one: while the first in it waits, nobody behind it is placed.",
        "None needed: it is its turn when those before it are placed. With queuePolicy: Priority in its Queue, the "
        "attribute gpufleet.io/queue-policy: Priority of the quota, or the setting queue_policy, those that fit may "
        "overtake.",
    ),
    Code.CLUSTER_KEPT: Explanation(
        "The first in the queue has been overtaken for longer than overtake_after. Those behind it get of this cluster "
        "only what leaves it its place once those have gone who were there before.",
        "None needed: the cluster is free for others again as soon as the first is placed.",
    ),
    Code.QUEUE_TIMEOUT: Explanation(
        "It waited for longer than the policy's queueTimeout, and was given up.",
        "Submit it again, changed or with a new uid in its envelope, when there is room; or raise queueTimeout.",
    ),
    Code.JOB_DIVIDED: Explanation(
        "The parallelism of a batch Job was raised that is divided already. Its parts have all of its completions, so "
        "a further part would have nothing to do; only the clusters that have a part may run more of it.",
        "Free room in the clusters that have a part, or delete the Job and submit it anew to have it divided anew.",
    ),
    Code.CLUSTER_REPLACED: Explanation(
        "Another cluster has the name of the one that was decided on: its namespace kube-system has another UID. "
        "Replicas are ordered anew there. A job is not, because its copy in the old cluster may still run.",
        "For a job: when the old cluster is gone for good, take it out of the fleet and register it again (`gpufleet "
        "delete -f FILE`, then `gpufleet apply -f FILE`, with its Cluster document). For anything else none needed.",
    ),
}

# Why the rescheduler took replicas back; in evictions, logs, and the label of its metric.
EVICTIONS: Mapping[str, Explanation] = {
    "PendingTooLong": Explanation(
        "Pods were unschedulable in their cluster for longer than pending_after and do not wait for a node that is "
        "being provisioned.",
        "Their number is taken off this cluster's share, down to what is bound, and placed elsewhere.",
    ),
    "ProvisioningFailed": Explanation(
        "Pods were to run on nodes that were to be created, and the cluster's autoscaler said that it has no stock for "
        "them, or the nodes did not come within inventory.provision_timeout.",
        "As PendingTooLong; and for provision_retry the scheduler counts on no more nodes of that class there.",
    ),
    "StartFailed": Explanation(
        "A workload that is placed whole could not start for lack of room.",
        "Its copy is taken back; when it is confirmed gone, the workload is placed in another cluster.",
    ),
    "InfrastructureFailure": Explanation(
        "The job failed with its node or its cluster, or was evicted or preempted there.",
        "It is sent to another cluster, at most max_redispatch times, with growing pauses.",
    ),
    "JobFailed": Explanation(
        "The job failed through its own containers, and its policy says that such jobs are sent elsewhere.",
        "As InfrastructureFailure.",
    ),
    "ClusterUnreachable": Explanation(
        "The cluster's API has been silent for longer than unreachable_after.",
        "Its movable replicas are placed elsewhere. A job waits until the cluster confirms that its copy is gone.",
    ),
}
