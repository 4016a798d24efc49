"""Names that gpufleet writes on objects in member clusters, and fixed keys on topics."""

from __future__ import annotations

import hashlib

API_GROUP = "gpufleet.io"
API_VERSION = "gpufleet.io/v1alpha1"

# On the object and on every pod template: label values are too short for a key, so the label holds its hash.
WORKLOAD_LABEL = "gpufleet.io/workload"
WORKLOAD_ANNOTATION = "gpufleet.io/workload"
COMPONENT_LABEL = "gpufleet.io/component"
# On the object: which decision it was written for, as JSON {"log", "epoch", "version"}.
VERSION_ANNOTATION = "gpufleet.io/version"
# On pod templates, and in the selectors of further objects: the unit of a ResourcePolicy that the pods are in.
UNIT_LABEL = "gpufleet.io/unit"
FIELD_MANAGER = "gpufleet-dispatcher"

# While a record of this key is on the policies topic nothing is written to clusters.
FREEZE_NAME = "fleet"
FREEZE_KEY = "Freeze//fleet"
# Keys of kinds that are declared, on the policies topic.
KIND_PREFIX = "WorkloadKind//"

# The component of kinds that have one pod template.
MAIN = "main"

# What a serverless pod asks of its virtual node (specification 15.1).
ACS = "alibabacloud.com/acs"
COMPUTE_CLASS = "alibabacloud.com/compute-class"
COMPUTE_QOS = "alibabacloud.com/compute-qos"
GPU_MODEL_SERIES = "alibabacloud.com/gpu-model-series"
SERVERLESS_REGION = "alibabacloud.com/serverless-region-id"
# Labels of nodes, and of pods, that say which GPU model there is or should be; the first that is there counts.
GPU_MODEL_LABELS = (
    GPU_MODEL_SERIES,
    "aliyun.accelerator/nvidia_name",
    "nvidia.com/gpu.product",
    "cloud.google.com/gke-accelerator",
    "gpu",
)
# The scheduler rewrites these labels of pods, so no selector may name them.
REWRITTEN_LABELS = frozenset({ACS, COMPUTE_CLASS, COMPUTE_QOS, GPU_MODEL_SERIES, SERVERLESS_REGION})

# Which pods of a ReplicaSet go first when it shrinks: those of lower cost.
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def workload_label(key: str) -> str:
    """Returns the value of `WORKLOAD_LABEL` for a workload key: 16 hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]
