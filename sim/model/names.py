"""Labels, annotations and objects by which simulated clusters are told what to do, and tell of their stock.

On pods (or pod templates), all optional:

- `sim.gpufleet.io/ready-after`: seconds from being bound to Ready (default: the kubelet's)
- `sim.gpufleet.io/run-seconds`: seconds from start to the end of the containers (default: they run for ever)
- `sim.gpufleet.io/exit-code`: how they end (default 0)
- `sim.gpufleet.io/image-pull-error`: a message; the image cannot be pulled and the pod never starts
- `sim.gpufleet.io/stop-seconds`: seconds that a deleted pod takes to stop (default: the kubelet's)

On ResourceQuotas: `sim.gpufleet.io/used-besides`: what is used besides pods, such as `{"nvidia.com/gpu": "1"}`.

On nodes: `sim.gpufleet.io/down: "true"` makes the node fail, as if its machine lost power.

ConfigMap `kube-system/sim-faults`, key `faults.json`: what happens to pods of a workload, those to come included; a
list of `{"workload": "ns/Kind/name", "exitCode": 1, "runSeconds": 0}` (the pods end so), `{"workload": …,
"imagePullError": "…"}` or `{"workload": …, "unschedulable": 2}` (so many of its pods are kept from being bound).
Instead of `workload`, `namespace` and `podPrefix` may be given.

ConfigMap `kube-system/gpufleet-elastic-pools`: what the node autoscaler may do; one key per node pool with
`{"labels", "taints", "allocatable", "maxNodes", "stock", "provisionSeconds", "instanceType", "zone"}`, where
`maxNodes` and `stock` include the nodes that it has created; absent they are unlimited.

ConfigMap `kube-system/gpufleet-elastic-stock`: what the autoscaler says is left, for whoever places workloads; one key
per pool with `{"labels", "taints", "allocatable", "maxNodes", "stock", "provisionSeconds", "provisioning"}`, where
`maxNodes` are nodes that may still be added, `stock` instances that can be had now, and `provisioning` a list of
`{"node", "readyAt", "pods": [uid…]}`.

Virtual nodes (label `type: virtual-kubelet`) have the annotations `sim.gpufleet.io/serverless-total`, what there is in
all, and `gpufleet.io/serverless-stock`, what is left, both `[{"gpuModelSeries": "T4", "gpus": 8}]`; none: unlimited.
"""

from __future__ import annotations

READY_AFTER = "sim.gpufleet.io/ready-after"
RUN_SECONDS = "sim.gpufleet.io/run-seconds"
EXIT_CODE = "sim.gpufleet.io/exit-code"
IMAGE_PULL_ERROR = "sim.gpufleet.io/image-pull-error"
STOP_SECONDS = "sim.gpufleet.io/stop-seconds"

USED_BESIDES = "sim.gpufleet.io/used-besides"

NODE_DOWN = "sim.gpufleet.io/down"
# On nodes that the autoscaler has created: the pool. An annotation, so that they stay alike to the others of the class.
NODE_POOL = "sim.gpufleet.io/node-pool"
# On nodes that the autoscaler is about to delete.
NODE_CLOSED = "sim.gpufleet.io/closed"
CLASS_LABEL = "gpufleet.io/node-class"

SYSTEM_NAMESPACE = "kube-system"
FAULTS, FAULTS_KEY = "sim-faults", "faults.json"
POOLS = "gpufleet-elastic-pools"
STOCK = "gpufleet-elastic-stock"

VIRTUAL_LABEL, VIRTUAL_VALUE = "type", "virtual-kubelet"
REGION_LABEL = "topology.kubernetes.io/region"
SERVERLESS_TOTAL = "sim.gpufleet.io/serverless-total"
SERVERLESS_STOCK = "gpufleet.io/serverless-stock"
