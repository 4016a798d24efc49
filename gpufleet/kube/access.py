"""Opening a client for a cluster from its access description.

A description is the ``spec.access`` of a Cluster document:

- ``{kubeconfig: path, context: name}``: a file; without ``context`` the file's current-context;
- ``{inline: {...}, context: name}``: the content of a kubeconfig;
- ``{secretRef: {name, key}, context: name}``: the file ``<secrets_dir>/<name>/<key>``, as a mounted Secret has it
  (``key`` defaults to "kubeconfig"; a ``namespace`` may be there for the reader, the mount decides);
- ``{inCluster: true}``: the service account of the pod that this process runs in.

Each cluster gets a Configuration and an ApiClient of its own; the library's default configuration is never
used, since all clusters would share it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import importlib
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gpufleet.kube.client import REQUEST_SECONDS, KubeClient
from gpufleet.kube.errors import AccessError
from gpufleet.kube.transport import Transport, describe
from gpufleet.model.log import ClusterAccess
from gpufleet.telemetry import memory
from gpufleet.wire.yaml import plain

if TYPE_CHECKING:
    from collections.abc import Coroutine

logger = logging.getLogger(__name__)

_LIBRARY = "kubernetes_asyncio.config"
FORMS = ("kubeconfig", "inline", "secretRef", "inCluster")
POOL_SIZE = 32
PLUGIN_SECONDS = 60.0
REFRESH_SECONDS = 60.0
TOKEN_FILE_SECONDS = 60.0
_CLUSTER_FILES = ("certificate-authority",)
_USER_FILES = ("client-certificate", "client-key")


async def preload() -> None:
    """Loads the Kubernetes library, which takes seconds, off the event loop; the first `connect` then does not."""
    if await asyncio.to_thread(_load):
        memory.settle()


def _load() -> bool:
    first = _LIBRARY not in sys.modules
    importlib.import_module(_LIBRARY)
    return first


async def connect(
    cluster: str,
    access: Mapping[str, Any] | ClusterAccess,
    *,
    base_dir: Path | None = None,
    secrets_dir: Path | None = None,
    pool_size: int = POOL_SIZE,
    timeout: float = REQUEST_SECONDS,
) -> KubeClient:
    """Open a client for ``cluster``; nothing is sent to it yet, but a credential plugin is run.

    ``base_dir`` is what relative kubeconfig paths start from (default: the working directory), ``pool_size``
    bounds the connections, each open watch holds one; ``timeout`` is the default for requests in seconds.
    Raises AccessError.
    """
    if isinstance(access, ClusterAccess):
        access = description_of(access)
    form = _form_of(cluster, access)
    # The first import takes seconds; in a thread it does not hold up the event loop.
    await preload()
    if form == "inCluster":
        return _connect_in_cluster(cluster, pool_size, timeout)
    context = access.get("context")
    if context is not None and not isinstance(context, str):
        raise AccessError(cluster, f"access.context is {context!r}", "give the name of a context")
    if form == "inline":
        minimal = select_context(cluster, access["inline"], context, base_dir or Path(), "access.inline")
    else:
        path = _path_of(cluster, form, access[form], base_dir or Path(), secrets_dir)
        minimal = select_context(cluster, read_kubeconfig(cluster, path), context, path.parent, str(path))
    return await _connect_kubeconfig(cluster, minimal, pool_size, timeout)


def description_of(access: ClusterAccess) -> dict[str, Any]:
    """The description that a registration on the log amounts to."""
    fields = {
        "kubeconfig": access.kubeconfig,
        "context": access.context,
        "secretRef": access.secret_ref,
        "inline": access.inline,
        "inCluster": access.in_cluster,
        "simulated": access.simulated,
    }
    return {name: value for name, value in fields.items() if value}


def read_kubeconfig(cluster: str, path: Path) -> Any:
    """The parsed YAML of a kubeconfig file; AccessError if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise AccessError(
            cluster, f"kubeconfig {path} does not exist", "correct access.kubeconfig or create the file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(cluster, f"kubeconfig {path} cannot be read: {describe(error)}") from error
    try:
        return _parse(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}, column {place.column + 1}" if place else ""
        problem = getattr(error, "problem", None) or "no YAML"
        raise AccessError(cluster, f"kubeconfig {path} is not YAML{where}: {problem}") from error


@lru_cache(maxsize=4)
def _parse(text: str) -> Any:
    """Parsed once: a file may hold the contexts of a hundred clusters. Callers do not change the result."""
    return plain(text)


def select_context(cluster: str, config: Any, context: str | None, base_dir: Path, source: str) -> dict[str, Any]:
    """A kubeconfig with only what ``context`` needs, relative paths resolved against ``base_dir``.

    ``source`` names the kubeconfig in messages. Raises AccessError.
    """
    if not isinstance(config, Mapping):
        raise AccessError(
            cluster,
            f"{source} holds {type(config).__name__}, not a kubeconfig",
            "it must be a mapping with clusters, users and contexts",
        )
    wanted = context or config.get("current-context")
    if not wanted:
        raise AccessError(
            cluster,
            f"{source} has no current-context and access.context is not given",
            f"name one of its contexts: {_names(config, 'contexts')}",
        )
    entry = _named(cluster, config, "contexts", wanted, "context", source)
    chosen = _named(cluster, config, "clusters", entry.get("cluster"), "cluster", source, f"context {wanted}")
    server = chosen.get("server")
    if not isinstance(server, str) or not server.startswith(("https://", "http://")):
        raise AccessError(
            cluster,
            f"{source}: server of cluster {entry.get('cluster')} is {server!r}",
            "it must start with https:// or http://",
        )
    user: dict[str, Any] = {}
    if entry.get("user"):
        user = _named(cluster, config, "users", entry["user"], "user", source, f"context {wanted}")
    _resolve_paths(chosen, _CLUSTER_FILES, base_dir)
    _resolve_paths(user, (*_USER_FILES, "tokenFile"), base_dir)
    plugin = user.get("exec")
    if isinstance(plugin, Mapping) and "/" in str(plugin.get("command", "")):
        user["exec"] = {**plugin, "command": str(base_dir.absolute() / str(plugin["command"]))}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": chosen}],
        "users": [{"name": "u", "user": user}],
    }


def _form_of(cluster: str, access: Mapping[str, Any]) -> str:
    given = [form for form in FORMS if access.get(form)]
    unknown = sorted(set(access) - {*FORMS, "context"})
    if unknown:
        raise AccessError(cluster, f"access.{unknown[0]} cannot be used by a client", f"use one of {', '.join(FORMS)}")
    if len(given) != 1:
        found = "gives none" if not given else f"gives {' and '.join(given)}"
        raise AccessError(cluster, f"access {found}", f"give exactly one of {', '.join(FORMS)}")
    return given[0]


def _path_of(cluster: str, form: str, value: Any, base_dir: Path, secrets_dir: Path | None) -> Path:
    if form == "kubeconfig":
        if not isinstance(value, str):
            raise AccessError(cluster, f"access.kubeconfig is {value!r}", "give the path of a file")
        return base_dir / Path(value).expanduser()
    if secrets_dir is None:
        raise AccessError(cluster, "access.secretRef needs a folder of secrets", "set one for this service")
    parts = (value.get("name"), value.get("key", "kubeconfig")) if isinstance(value, Mapping) else (None,)
    for part in parts:
        if not isinstance(part, str) or not part or "/" in part or part in (".", ".."):
            raise AccessError(
                cluster, f"access.secretRef is {value!r}", "give name and key, both plain names without slashes"
            )
    return secrets_dir.joinpath(*(str(part) for part in parts))


def _names(config: Mapping[str, Any], section: str) -> str:
    entries = config.get(section)
    entries = entries if isinstance(entries, list) else []
    names = sorted(str(entry.get("name")) for entry in entries if isinstance(entry, Mapping))
    return ", ".join(names) or "(it has none)"


def _named(
    cluster: str,
    config: Mapping[str, Any],
    section: str,
    name: Any,
    field: str,
    source: str,
    referrer: str = "",
) -> dict[str, Any]:
    entries = config.get(section)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping) and entry.get("name") == name and name is not None:
            value = entry.get(field)
            if isinstance(value, Mapping) or (value is None and field == "user"):
                return dict(value or {})
            raise AccessError(cluster, f"{source}: {field} {name} is {value!r}", "it must be a mapping")
    named_by = f", which {referrer} names" if referrer else ""
    raise AccessError(
        cluster, f"{source} has no {field} {name!r}{named_by}", f"its {section} are {_names(config, section)}"
    )


def _resolve_paths(section: dict[str, Any], keys: tuple[str, ...], base_dir: Path) -> None:
    for key in keys:
        if section.get(key) and not section.get(f"{key}-data"):
            section[key] = str(base_dir.absolute() / Path(str(section[key])).expanduser())


async def _connect_kubeconfig(cluster: str, config: dict[str, Any], pool_size: int, timeout: float) -> KubeClient:
    from kubernetes_asyncio import config as kube_config
    from kubernetes_asyncio.client import Configuration

    section: dict[str, Any] = config["clusters"][0]["cluster"]
    user: dict[str, Any] = config["users"][0]["user"]
    configuration = Configuration()
    configuration.connection_pool_maxsize = pool_size
    # The library would leave keys from the kubeconfig in files until the process ends. The TLS context has
    # read them by the time the client exists, so they can be in a folder that goes away at once.
    with tempfile.TemporaryDirectory(prefix="gpufleet-kube-") as folder:
        _data_to_files(cluster, section, _CLUSTER_FILES, Path(folder))
        _data_to_files(cluster, user, _USER_FILES, Path(folder))
        try:
            async with asyncio.timeout(PLUGIN_SECONDS):
                loader = await kube_config.load_kube_config_from_dict(
                    config, context="c", client_configuration=configuration, temp_file_path=folder
                )
        except TimeoutError:
            raise AccessError(cluster, f"the credential plugin gave no answer in {PLUGIN_SECONDS:g} s") from None
        except Exception as error:
            # The library raises whatever a broken section leads to: ConfigException, KeyError, OSError, ...
            plugin = user.get("exec")
            what = (
                f"the credential plugin {plugin.get('command')!r} failed"
                if isinstance(plugin, Mapping)
                else ("its credentials cannot be loaded")
            )
            raise AccessError(cluster, f"{what}: {describe(error)}") from error
        transport = _open_transport(cluster, configuration)
    if user.get("tokenFile") and not user.get("token"):
        configuration.refresh_api_key_hook = _token_file_hook(cluster, Path(user["tokenFile"]))
    refresher = None
    if "BearerToken" in configuration.api_key and ("exec" in user or loader.provider == "gcp"):
        refresher = asyncio.create_task(
            _keep_refreshing(
                cluster, lambda: kube_config.refresh_token(loader, configuration, interval=REFRESH_SECONDS)
            ),
            name=f"token refresh of {cluster}",
        )
    return KubeClient(cluster, transport, timeout=timeout, refresher=refresher)


def _connect_in_cluster(cluster: str, pool_size: int, timeout: float) -> KubeClient:
    from kubernetes_asyncio import config as kube_config
    from kubernetes_asyncio.client import Configuration

    configuration = Configuration()
    configuration.connection_pool_maxsize = pool_size
    try:
        kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (kube_config.ConfigException, OSError) as error:
        raise AccessError(
            cluster,
            f"access.inCluster needs a pod's service account: {describe(error)}",
            "outside of a pod give a kubeconfig",
        ) from error
    return KubeClient(cluster, _open_transport(cluster, configuration), timeout=timeout)


def _open_transport(cluster: str, configuration: Any) -> Transport:
    from kubernetes_asyncio.client import ApiClient

    try:
        return Transport(ApiClient(configuration))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise AccessError(
            cluster,
            f"its certificates cannot be loaded: {describe(error)}",
            "certificate-authority, client-certificate and client-key must be PEM",
        ) from error


def _data_to_files(cluster: str, section: dict[str, Any], keys: tuple[str, ...], folder: Path) -> None:
    for key in keys:
        data = section.pop(f"{key}-data", None)
        if not data:
            continue
        try:
            content = base64.b64decode(str(data), validate=False)
        except (binascii.Error, ValueError) as error:
            raise AccessError(cluster, f"{key}-data is not base64: {error}") from error
        file = folder / key
        file.write_bytes(content)
        section[key] = str(file)


def _token_file_hook(cluster: str, path: Path) -> Callable[[Any], None]:
    """Reads a token file again now and then: kubelets and sidecars renew such files."""
    read_at = time.monotonic()

    def refresh(configuration: Any) -> None:
        nonlocal read_at
        now = time.monotonic()
        if now - read_at < TOKEN_FILE_SECONDS:
            return
        read_at = now
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            logger.warning("cluster %s: token file %s cannot be read, keeping the old token: %s", cluster, path, error)
            return
        if token:
            configuration.api_key["BearerToken"] = f"Bearer {token}"

    return refresh


async def _keep_refreshing(cluster: str, refresh: Callable[[], Coroutine[Any, Any, None]]) -> None:
    # refresh_token() sleeps first, and ends with the first failure of the plugin: start it again.
    while True:
        try:
            await refresh()
        except Exception as error:
            logger.warning("cluster %s: the token could not be refreshed: %s", cluster, describe(error))
        else:
            return
