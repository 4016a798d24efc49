"""Real Kubernetes control planes on loopback, with kwok nodes instead of machines.

Each cluster has its own etcd, kube-apiserver, kube-controller-manager, kube-scheduler (with a second profile,
``ack-co-scheduler``) and kwok. Everything runs from a temporary folder and is gone after ``stop()`` or when the
test process ends.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gpufleet.embedded.ports import free_ports
from gpufleet.embedded.process import SupervisedProcess
from tests.support import kube_build
from tests.support.kubeapi import Document, KubeApi
from tests.support.waiting import wait_for

SECOND_SCHEDULER = "ack-co-scheduler"
KWOK_ANNOTATION = "kwok.x-k8s.io/node"
START_TIMEOUT = 90.0
CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "job-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "node-lifecycle-controller",  # it takes the not-ready taint off
    "taint-eviction-controller",
    "pod-garbage-collector-controller",
    "resourcequota-controller",
    "disruption-controller",
)
# Who may log in: name of the kubeconfig -> (user, group). `gpufleet` has no rights until a test binds a role.
_USERS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kwok": ("kwok", "system:masters"),
    "gpufleet": ("gpufleet", "gpufleet"),
}


def gpu_node(
    name: str,
    gpus: int = 8,
    cpu: str = "96",
    memory: str = "1Ti",
    labels: Mapping[str, str] | None = None,
    taints: Sequence[Mapping[str, str]] = (),
) -> Document:
    """A Node document that kwok keeps ready: ``gpus`` of ``nvidia.com/gpu``, 110 pods."""
    capacity = {"cpu": cpu, "memory": memory, "pods": "110", "nvidia.com/gpu": str(gpus)}
    system_labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {KWOK_ANNOTATION: "fake"},
            "labels": {**system_labels, **(labels or {})},
        },
        "spec": {"taints": [dict(taint) for taint in taints]} if taints else {},
        "status": {"capacity": capacity, "allocatable": dict(capacity)},
    }


@dataclass(frozen=True)
class ClusterSpec:
    """What one cluster starts with. ``nodes`` are Node documents; kwok keeps those with its annotation ready.

    With ``kwok_pods`` false kwok leaves pods alone and something else has to play the kubelet.
    """

    name: str
    nodes: Sequence[Document] = ()
    kwok_pods: bool = True


@dataclass
class ControlPlane:
    """One cluster. ``api`` is a client with all rights, ``kubeconfig`` the same as a file."""

    spec: ClusterSpec
    programs: Path
    folder: Path
    ports: tuple[int, int, int]
    api: KubeApi = field(init=False)
    _tokens: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _processes: dict[str, SupervisedProcess] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.ports[0]}"

    @property
    def version(self) -> str:
        """Version of the API server, as it says itself."""
        body = self.api.request("GET", "/version").body
        return str(body["gitVersion"])

    @property
    def kubeconfig(self) -> Path:
        return self.kubeconfig_of("admin")

    @property
    def certificate(self) -> Path:
        """The server's self-signed certificate, its own authority."""
        return self.folder / "pki" / "apiserver.crt"

    def kubeconfig_of(self, user: str) -> Path:
        """Kubeconfig of ``admin`` or of ``gpufleet``, a user without rights of its own."""
        return self.folder / f"{user}.kubeconfig"

    def start(self, crds: Sequence[Path] = ()) -> None:
        """Start everything and wait until pods can be created and every node is ready.

        CustomResourceDefinitions of ``crds`` are there before the controllers, so that the garbage collector knows
        their kinds from the first.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_credentials()
        self._start_etcd()
        self.start_api()
        self.install_crds(crds)
        self._start_controllers()
        self._start_scheduler()
        self._start_kwok()
        self.add_nodes(self.spec.nodes)
        self._wait("service account of the namespace default", lambda: self._exists("ServiceAccount", "default"))
        self.wait_for_nodes()

    def stop(self) -> None:
        """Kill every process, the servers last. Nothing is worth saving."""
        for process in reversed(self._processes.values()):
            process.kill()
        self._processes.clear()
        if hasattr(self, "api"):
            self.api.close()

    # --- what tests do to a cluster ----------------------------------------------------------------------------

    def add_nodes(self, nodes: Sequence[Document]) -> None:
        for node in nodes:
            self.api.create(node).expect(201)

    def wait_for_nodes(self) -> None:
        """Wait until every node that is kwok's is ready and without a taint of the node controllers."""
        self._wait("nodes to become ready", self._nodes_ready)

    def install_crds(self, files: Sequence[Path]) -> None:
        """Create the CustomResourceDefinitions of YAML files and wait until they are served.

        The garbage collector looks for new kinds every 30 s: until then owners of such objects are not followed.
        """
        found = [crd for file in files for crd in yaml.safe_load_all(file.read_text(encoding="utf-8")) if crd]
        for crd in found:
            self.api.apply(crd, force=True).expect(200, 201)
        for crd in found:
            self._learn(crd)

    def kill_api(self) -> None:
        """Kill the API server; the data stays."""
        self._processes.pop("kube-apiserver").kill()

    def start_api(self) -> None:
        """Start the API server (again, on the same port) and wait until it is ready.

        A restart empties its watch cache, so that a watch from an older version is answered with 410.
        """
        api, etcd, _ = self.ports
        key = self.folder / "service-accounts.key"
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={api}",
            f"--cert-dir={self.folder / 'pki'}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--profiling=false",
            "--enable-admission-plugins=ExtendedResourceToleration",
        )
        self._wait("the API server", self._api_ready)

    def pause_nodes(self) -> None:
        """Stop every node's heartbeat; they turn NotReady after some 13 s or more."""
        self._processes["kwok"].signal(signal.SIGSTOP)

    def resume_nodes(self) -> None:
        self._processes["kwok"].signal(signal.SIGCONT)

    # --- processes ---------------------------------------------------------------------------------------------

    def _spawn(self, program: str, *flags: str) -> None:
        log = self.folder / f"{program}.log"
        self._processes[program] = SupervisedProcess([str(self.programs / program), *flags], log=log).start()

    def _start_etcd(self) -> None:
        _, client, peer = self.ports
        self._spawn(
            "etcd",
            "--name=e",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=e=http://127.0.0.1:{peer}",
        )

    def _start_controllers(self) -> None:
        self._spawn(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig_of('controllers')}",
            "--leader-elect=false",
            "--secure-port=0",
            f"--controllers={','.join(CONTROLLERS)}",
            f"--service-account-private-key-file={self.folder / 'service-accounts.key'}",
            f"--root-ca-file={self.certificate}",  # what Secrets with tokens give as ca.crt
            "--use-service-account-credentials=true",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            "--node-monitor-period=2s",
            "--node-monitor-grace-period=20s",
        )

    def _start_scheduler(self) -> None:
        config = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": str(self.kubeconfig_of("scheduler")), "qps": 500, "burst": 1000},
            "leaderElection": {"leaderElect": False},
            "podMaxBackoffSeconds": 2,
            "profiles": [{"schedulerName": "default-scheduler"}, {"schedulerName": SECOND_SCHEDULER}],
        }
        file = self.folder / "scheduler.yaml"
        file.write_text(yaml.safe_dump(config))
        self._spawn("kube-scheduler", f"--config={file}", "--secure-port=0")

    def _start_kwok(self) -> None:
        stages = list(yaml.safe_load_all((self.programs / "kwok.yaml").read_text(encoding="utf-8")))
        kept = [stage for stage in stages if self.spec.kwok_pods or stage["spec"]["resourceRef"]["kind"] != "Pod"]
        file = self.folder / "kwok.yaml"
        file.write_text(yaml.safe_dump_all(kept))
        self._spawn(
            "kwok",
            f"--kubeconfig={self.kubeconfig_of('kwok')}",
            f"--config={file}",
            "--cidr=10.244.0.0/16",
            "--node-ip=127.0.0.1",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={KWOK_ANNOTATION}=fake",
            "--node-lease-duration-seconds=40",
        )

    # --- credentials -------------------------------------------------------------------------------------------

    def _write_credentials(self) -> None:
        _write_private(self.folder / "service-accounts.key", _rsa_key())
        rows = []
        for name, (user, group) in _USERS.items():
            token = self._tokens[name] = secrets.token_hex(16)
            rows.append(f'{token},{user},{name},"{group}"' if group else f"{token},{user},{name}")
            _write_private(self.kubeconfig_of(name), yaml.safe_dump(self._kubeconfig(token)).encode())
        _write_private(self.folder / "tokens.csv", "\n".join(rows).encode())

    def _kubeconfig(self, token: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": self.name,
            "clusters": [
                {"name": self.name, "cluster": {"server": self.server, "certificate-authority": str(self.certificate)}}
            ],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": "user"}}],
        }

    # --- waiting -----------------------------------------------------------------------------------------------

    def _wait(self, what: str, condition: Any) -> None:
        def looked() -> bool:
            for program, process in self._processes.items():
                if not process.running:
                    raise RuntimeError(f"{program} of cluster {self.name} ended:\n{process.log_tail(8)}")
            return bool(condition())

        wait_for(looked, f"{what} of cluster {self.name} (logs: {self.folder})", START_TIMEOUT, every=0.05)

    def _api_ready(self) -> bool:
        if not self.certificate.exists():
            return False
        try:
            if not hasattr(self, "api"):
                # The server writes the file while we look: an incomplete one is an SSLError, which is an OSError.
                self.api = KubeApi(self.server, self._tokens["admin"], str(self.certificate))
            return self.api.request("GET", "/readyz", timeout=2.0).status == 200
        except OSError:
            return False

    def _exists(self, kind: str, name: str) -> bool:
        path = self.api.path("v1", kind, "default", name)
        return self.api.request("GET", path).status == 200

    def _nodes_ready(self) -> bool:
        nodes = self.api.list("v1", "Node")
        return all(_is_ready(node) for node in nodes if KWOK_ANNOTATION in node["metadata"].get("annotations", {}))

    def _learn(self, crd: Document) -> None:
        spec = crd["spec"]
        names = spec["names"]
        for version in spec["versions"]:
            if version["served"]:
                api_version = f"{spec['group']}/{version['name']}"
                self.api.learn(api_version, names["kind"], names["plural"], spec["scope"] == "Namespaced")
                path = self.api.path(api_version, names["kind"])
                self._wait(f"{names['kind']} to be served", lambda p=path: self.api.request("GET", p).status == 200)


class ControlPlanes:
    """Several clusters, started in parallel. ``with ControlPlanes([ClusterSpec("idc")]) as planes: planes["idc"]``."""

    def __init__(self, specs: Sequence[ClusterSpec], crds: Sequence[Path] = ()) -> None:
        self.specs, self.crds = list(specs), list(crds)
        self.folder = Path()
        self.clusters: dict[str, ControlPlane] = {}

    def start(self) -> ControlPlanes:
        """Build the programs if they are not in the cache, then start all clusters; some 5 to 15 s."""
        programs = kube_build.programs()
        self.folder = Path(tempfile.mkdtemp(prefix="gpufleet-kube-"))
        ports = free_ports(3 * len(self.specs))
        for number, spec in enumerate(self.specs):
            api, client, peer = ports[3 * number : 3 * number + 3]
            self.clusters[spec.name] = ControlPlane(spec, programs, self.folder / spec.name, (api, client, peer))
        try:
            with ThreadPoolExecutor(len(self.specs)) as pool:
                list(pool.map(lambda plane: plane.start(self.crds), self.clusters.values()))
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kill everything and remove the folder (kept if ``GPUFLEET_KEEP`` is set, for the logs)."""
        for plane in self.clusters.values():
            plane.stop()
        self.clusters.clear()
        if not os.environ.get("GPUFLEET_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def __getitem__(self, name: str) -> ControlPlane:
        return self.clusters[name]

    def __enter__(self) -> ControlPlanes:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _is_ready(node: Document) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    taints = node["spec"].get("taints", [])
    return ready and not any(taint["key"].startswith("node.kubernetes.io/") for taint in taints)


def _write_private(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)


def _rsa_key() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
