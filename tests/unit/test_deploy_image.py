"""The image: what is pinned, what is copied, who runs in it, and how it is probed."""

from __future__ import annotations

import fnmatch
import http.server
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEALTHCHECK = ROOT / "deploy" / "docker" / "healthcheck.py"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
# Without comments, and with continued lines joined.
LINES = [
    line.strip()
    for line in re.sub(r"\\\n", " ", re.sub(r"^#.*$", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
    if line.strip()
]
STAGES = "\n".join(LINES).split("FROM ")[1:]


def _locked(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Returns version and hashes by package."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = {}
    for entry in re.split(r"\n(?=\S)", text):
        pinned = re.match(r"([a-z0-9][a-z0-9.-]*)==(\S+)", entry)
        assert pinned, f"{name}: {entry[:80]!r} is not pinned"
        found[pinned[1]] = (pinned[2], frozenset(re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry)))
    return found


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ;]", r)[0].lower().replace("_", "-") for r in requirements}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_runtime_lock_is_the_part_of_the_lock_that_runs() -> None:
    whole, runtime = _locked("requirements.lock"), _locked("requirements-runtime.lock")
    assert {name: pin for name, pin in runtime.items() if whole.get(name) != pin} == {}
    assert _names(PROJECT["project"]["dependencies"]) <= runtime.keys()


def test_runtime_lock_has_no_development_package_and_no_embedded_broker() -> None:
    dev = _names(PROJECT["dependency-groups"]["dev"])
    embedded = _names(PROJECT["project"]["optional-dependencies"]["embedded"])
    assert not (dev | embedded) & _locked("requirements-runtime.lock").keys()


@pytest.mark.parametrize("lock", ["requirements-runtime.lock", "requirements-build.lock"])
def test_everything_has_hashes(lock: str) -> None:
    assert [name for name, (_, hashes) in _locked(lock).items() if not hashes] == []


def test_build_lock_pins_the_build_backend_and_uv() -> None:
    assert _names(PROJECT["build-system"]["requires"]) | {"uv"} <= _locked("requirements-build.lock").keys()


def test_make_lock_writes_every_lock() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for lock in ("requirements.lock", "requirements-runtime.lock", "requirements-build.lock"):
        assert f"-o {lock}" in makefile


def test_dockerfile_installs_only_by_hash() -> None:
    for line in LINES:
        for command in re.split(r"&&", line.removeprefix("RUN ")):
            if "pip install" in command:
                assert "--require-hashes" in command or "--no-deps --no-index" in command, command
    assert "requirements.lock" not in " ".join(LINES), "the lock of the checkout holds test packages"


def test_dockerfile_names_no_registry() -> None:
    images = re.findall(r"^ARG \w+_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert images
    for image in images:
        assert "/" not in image
        assert re.fullmatch(r"[a-z]+:[0-9][\w.-]*", image), f"{image} is not pinned to a version"
    assert all(stage.startswith("${PYTHON_IMAGE}") for stage in STAGES)


def _ignored(path: str) -> bool:
    """Whether .dockerignore leaves a path out: the last matching rule counts."""
    result = False
    for rule in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!").rstrip("/")
        if fnmatch.fnmatch(path, pattern) or path.startswith(f"{pattern}/"):
            result = not rule.startswith("!")
    return result


def test_dockerfile_copies_what_is_there_and_not_ignored() -> None:
    sources = [
        source for line in LINES if line.startswith("COPY ") and "--from" not in line for source in line.split()[1:-1]
    ]
    assert {"gpufleet/", "services/", "sim/", "proto/"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not _ignored(source.rstrip("/")), source


@pytest.mark.parametrize("path", [".git", ".venv", "tests", "requirements.lock", "docs", "deploy/compose"])
def test_build_context_leaves_out_what_the_image_does_not_need(path: str) -> None:
    assert _ignored(path)


def test_what_is_installed_can_be_read_whatever_the_modes_of_the_checkout_are() -> None:
    """A checkout under umask 077 has files that only their owner reads; in the image that is root."""
    build, last = (stage.splitlines() for stage in STAGES)
    assert build[-1].endswith("&& chmod -R a+rX /opt/gpufleet")
    copies = [line for line in last if line.startswith("COPY ")]
    assert copies == ["COPY --from=build /opt/gpufleet /opt/gpufleet"]


def test_image_runs_as_a_number_without_rights_and_has_a_health_check() -> None:
    last = STAGES[-1].splitlines()
    users = [line for line in last if line.startswith("USER ")]
    assert users == ["USER 65532:65532"]  # a number, so that runAsNonRoot can be checked
    assert any(line.startswith("HEALTHCHECK") and "/livez" in line for line in last)
    assert not any(line.startswith("RUN") and "pip" in line for line in last)


# -- the health check itself -------------------------------------------------------------------------------------------


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/livez" else 503)
        self.end_headers()
        self.wfile.write(b'{"checks": {"tables": "not read to their end"}}')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def _check(*arguments: str, port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HEALTHCHECK), *arguments],
        env={"GPUFLEET_HTTP_PORT": str(port)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_health_check_asks_the_port_of_the_settings(port: int) -> None:
    assert _check(port=port).returncode == 0
    assert _check(f"http://127.0.0.1:{port}/livez", port=1).returncode == 0


def test_health_check_says_what_was_answered(port: int) -> None:
    found = _check("/readyz", port=port)
    assert found.returncode == 1
    assert "503" in found.stderr
    assert "not read to their end" in found.stderr


def test_health_check_fails_where_nothing_listens() -> None:
    found = _check("/livez", port=1)
    assert found.returncode == 1
    assert "does not answer" in found.stderr
