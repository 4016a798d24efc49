"""Small manifests of every workload kind."""

from __future__ import annotations

from typing import Any

# A kind that gpufleet does not know, declared.
MODEL_SERVER: dict[str, Any] = {
    "apiVersion": "gpufleet.io/v1alpha1",
    "kind": "WorkloadKind",
    "metadata": {"name": "model-server"},
    "spec": {
        "group": "serving.example.com",
        "versions": ["v1"],
        "kind": "ModelServer",
        "job": False,
        "division": "Replicas",
        "pods": [{"name": "main", "template": "spec.template", "replicas": "spec.replicas", "ready": "status.ready"}],
    },
}


def template(gpus: int = 1, **spec: Any) -> dict[str, Any]:
    """Returns a pod template that asks for GPUs."""
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": str(gpus)}}
    return {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "main", "image": "image", "resources": resources}], **spec},
    }


def manifest(api_version: str, kind: str, spec: dict[str, Any], name: str = "x") -> dict[str, Any]:
    """Returns an object in the namespace test."""
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "test"}, "spec": spec}


def supporting(kind: str, name: str = "x", **fields: Any) -> dict[str, Any]:
    """Returns a ConfigMap, Secret, PersistentVolumeClaim or ServiceAccount in the namespace test."""
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "test"}, **fields}


def deployment(replicas: int | None = 3, kind: str = "Deployment", api_version: str = "apps/v1") -> dict[str, Any]:
    """Returns a Deployment, or a kind of the same shape."""
    spec = {"selector": {"matchLabels": {"app": "x"}}, "template": template()}
    return manifest(api_version, kind, spec if replicas is None else {"replicas": replicas, **spec})


def pytorch(workers: int = 2) -> dict[str, Any]:
    """Returns a PyTorchJob with a master."""
    roles = {"Master": {"template": template()}, "Worker": {"replicas": workers, "template": template(8)}}
    return manifest("kubeflow.org/v1", "PyTorchJob", {"pytorchReplicaSpecs": roles})


def tensorflow() -> dict[str, Any]:
    """Returns a TFJob."""
    roles = {"Worker": {"replicas": 2, "template": template()}, "PS": {"template": template(0)}}
    return manifest("kubeflow.org/v1", "TFJob", {"tfReplicaSpecs": roles})


def mpi() -> dict[str, Any]:
    """Returns an MPIJob."""
    roles = {"Launcher": {"template": template(0)}, "Worker": {"replicas": 4, "template": template()}}
    return manifest("kubeflow.org/v2beta1", "MPIJob", {"mpiReplicaSpecs": roles})


def spark() -> dict[str, Any]:
    """Returns a SparkApplication."""
    spec = {"type": "Scala", "mode": "cluster", "driver": {"cores": 1}, "executor": {"instances": 5}}
    return manifest("sparkoperator.k8s.io/v1beta2", "SparkApplication", spec)


def workflow() -> dict[str, Any]:
    """Returns an Argo Workflow."""
    spec = {"entrypoint": "a", "templates": [{"name": "a", "container": {"image": "x"}}]}
    return manifest("argoproj.io/v1alpha1", "Workflow", spec)


def ray_cluster_spec() -> dict[str, Any]:
    """Returns a Ray cluster with two worker groups."""
    return {
        "headGroupSpec": {"template": template(0)},
        "workerGroupSpecs": [
            {"groupName": "small", "replicas": 2, "minReplicas": 1, "template": template()},
            {"groupName": "large", "replicas": 1, "numOfHosts": 4, "template": template(8)},
        ],
    }


def ray_job() -> dict[str, Any]:
    """Returns a RayJob."""
    return manifest("ray.io/v1", "RayJob", {"entrypoint": "python x.py", "rayClusterSpec": ray_cluster_spec()})


def ray_cluster() -> dict[str, Any]:
    """Returns a RayCluster."""
    return manifest("ray.io/v1", "RayCluster", ray_cluster_spec())


def job(parallelism: int | None = 3, completions: int | None = None) -> dict[str, Any]:
    """Returns a batch Job."""
    spec: dict[str, Any] = {"template": template()}
    if parallelism is not None:
        spec["parallelism"] = parallelism
    if completions is not None:
        spec["completions"] = completions
    return manifest("batch/v1", "Job", spec)


def cron_job() -> dict[str, Any]:
    """Returns a CronJob."""
    return manifest("batch/v1", "CronJob", {"schedule": "0 3 * * *", "jobTemplate": {"spec": job(2)["spec"]}})


def pod() -> dict[str, Any]:
    """Returns a Pod."""
    return manifest("v1", "Pod", template()["spec"])


def every_kind() -> dict[str, dict[str, Any]]:
    """Returns one manifest of each kind, by kind."""
    manifests = [
        deployment(),
        deployment(kind="StatefulSet"),
        deployment(kind="CloneSet", api_version="apps.kruise.io/v1alpha1"),
        pod(),
        job(),
        cron_job(),
        pytorch(),
        tensorflow(),
        mpi(),
        spark(),
        workflow(),
        ray_job(),
        ray_cluster(),
        *(supporting(kind) for kind in ("ConfigMap", "Secret", "PersistentVolumeClaim", "ServiceAccount")),
    ]
    return {each["kind"]: each for each in manifests}
