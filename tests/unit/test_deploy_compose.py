"""compose.yaml: its parts fit together, and name what the code has. No container engine is needed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from gpufleet.cli.main import app
from gpufleet.cli.reference.settings import variables
from gpufleet.cli.system import SERVICES
from gpufleet.wire.documents import parse_documents
from gpufleet.wire.yaml import load
from sim.__main__ import read_arguments

ROOT = Path(__file__).resolve().parents[2]
FLEET = ROOT / "deploy" / "compose" / "fleet.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
PARTS: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, part in PARTS.items() if part["image"].startswith("gpufleet:"))
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
JOBS = ("topics", "clusters")

# The part of the compose specification that is used here; anything else is a slip of the pen until it is added.
KEYS = {
    "build", "cap_drop", "command", "depends_on", "entrypoint", "environment", "expose", "healthcheck", "image",
    "ports", "profiles", "pull_policy", "read_only", "restart", "security_opt", "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip
DURATION = r"(\d+(s|ms|m|h))+"


def test_top_level() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"name", "services", "volumes"}
    assert {*SERVICES, *JOBS, "kafka", "sim", "prometheus", "grafana"} <= PARTS.keys()


@pytest.mark.parametrize("name", PARTS)
def test_only_keys_of_the_specification(name: str) -> None:
    assert PARTS[name].keys() <= KEYS
    restart = PARTS[name].get("restart", "no")
    assert re.fullmatch(r"no|always|unless-stopped|on-failure(:\d+)?", restart)


@pytest.mark.parametrize("name", PARTS)
def test_images_are_pinned_and_of_no_named_registry(name: str) -> None:
    repository, _, tag = PARTS[name]["image"].rpartition(":")
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag)
    assert "." not in repository.split("/")[0]


def test_our_image_has_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {PARTS[name]["image"] for name in OURS} == {f"gpufleet:{version}"}


def test_our_image_is_built_once_and_never_pulled() -> None:
    """A build is labelled with its service: built by several, a second `up` would begin every container anew."""
    assert [name for name, part in PARTS.items() if "build" in part] == ["topics"]
    assert {PARTS[name].get("pull_policy") for name in OURS} == {"never"}


def test_kafka_is_the_version_that_the_tests_run_against() -> None:
    text = (ROOT / "tests" / "e2e" / "real" / "kafka" / "pom.xml").read_text(encoding="utf-8")
    assert f"<kafka.version>{PARTS['kafka']['image'].rpartition(':')[2]}</kafka.version>" in text


@pytest.mark.parametrize("name", OURS)
def test_environment_is_of_settings_that_exist(name: str) -> None:
    environment = PARTS[name]["environment"]
    assert [variable for variable in environment if variable not in variables()] == []
    assert all(isinstance(value, str) for value in environment.values())


@pytest.mark.parametrize("name", OURS)
def test_our_containers_may_do_nothing_that_they_need_not(name: str) -> None:
    part = PARTS[name]
    assert part["read_only"] is True
    assert part["cap_drop"] == ["ALL"]
    assert part["security_opt"] == ["no-new-privileges:true"]
    assert part["tmpfs"] == ["/tmp"]


@pytest.mark.parametrize("name", SERVICES)
def test_services_run_their_console_script(name: str) -> None:
    (command,) = PARTS[name]["command"]
    assert SCRIPTS[command] == f"services.{name}.__main__:main"


@pytest.mark.parametrize("name", JOBS)
def test_jobs_run_a_command_that_the_command_line_takes(name: str) -> None:
    program, *arguments = PARTS[name]["command"]
    assert program in SCRIPTS
    command: Any = get_command(app)
    while arguments and arguments[0] in getattr(command, "commands", {}):
        command = command.commands[arguments.pop(0)]
    assert not hasattr(command, "commands"), "a group is no command"
    command.make_context(name, arguments)  # raises a usage error


def test_the_simulation_takes_its_options() -> None:
    python, dash_m, module, *arguments = PARTS["sim"]["command"]
    assert (python, dash_m, module) == ("python", "-m", "sim")
    here = [f"--fleet={FLEET}" if argument.startswith("--fleet=") else argument for argument in arguments]
    parsed, options = read_arguments(here)
    assert parsed.clusters
    # The kubeconfig names the host that it listens on, so that must be what the other containers call it.
    assert options["host"] == "sim"
    assert options["tls"] is False  # a certificate would need a package that the image does not have
    assert PARTS["sim"]["healthcheck"]["test"][-1] == f"http://{options['host']}:{options['port']}/readyz"


def test_health_checks() -> None:
    for name, part in PARTS.items():
        check = part.get("healthcheck")
        if name in (*JOBS, "cli"):
            assert check == {"disable": True}, f"{name} ends by itself"
            continue
        assert check is not None, name
        assert check["test"][0] == "CMD", name
        assert check["retries"] > 0, name
        for key in ("interval", "timeout", "start_period"):
            assert re.fullmatch(DURATION, check[key]), f"{name}: {key}"


def test_the_health_check_of_kafka_starts_no_java_machine() -> None:
    port = PARTS["kafka"]["environment"]["KAFKA_LISTENERS"].partition("INTERNAL://:")[2].partition(",")[0]
    assert PARTS["kafka"]["healthcheck"]["test"] == ["CMD", "bash", "-c", f": > /dev/tcp/localhost/{port}"]


def test_what_depends_waits_for_the_right_thing() -> None:
    for name, part in PARTS.items():
        for other, rule in part.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in JOBS else "service_healthy"
            assert rule == {"condition": wanted}, f"{name} on {other}"
            assert other in PARTS, name
    for name in SERVICES:
        assert "topics" in PARTS[name]["depends_on"], "a service waits for its topics"
    assert PARTS["clusters"]["depends_on"].keys() == {"topics", "sim"}


def test_nothing_waits_in_a_circle() -> None:
    def ancestors(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path, name))
        for other in PARTS[name].get("depends_on", {}):
            ancestors(other, (*path, name))

    for name in PARTS:
        ancestors(name, ())


def test_volumes_are_declared_and_files_are_there() -> None:
    used = set()
    for name, part in PARTS.items():
        for volume in part.get("volumes", ()):
            source, target = volume.split(":")[:2]
            assert target.startswith("/"), volume
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert volume.endswith(":ro"), f"{name}: {volume}"
            else:
                used.add(source)
    assert used == COMPOSE["volumes"].keys()


def test_ports_are_for_this_machine_only() -> None:
    published = [port for part in PARTS.values() for port in part.get("ports", ())]
    assert len(published) == len(set(published)) > 0
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)


def test_clients_find_kafka_where_it_is_advertised() -> None:
    environment = PARTS["kafka"]["environment"]
    listeners = dict(entry.split("://") for entry in environment["KAFKA_LISTENERS"].split(","))
    advertised = dict(entry.split("://") for entry in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    assert PARTS["inventory"]["environment"]["GPUFLEET_KAFKA_BOOTSTRAP"] == advertised["INTERNAL"]
    assert advertised["HOST"] == "localhost:9092"
    for name, address in advertised.items():
        assert listeners[name] == f":{address.rpartition(':')[2]}"
    protocols = dict(e.split(":") for e in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert protocols.keys() == listeners.keys()
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_prometheus_scrapes_every_service() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert set(found["names"]) == set(SERVICES)
    for name in SERVICES:
        assert str(found["port"]) == PARTS[name]["environment"]["GPUFLEET_HTTP_PORT"]
    targets = [v.split(":")[1] for v in PARTS["prometheus"]["volumes"]]
    assert {str(Path(pattern).parent) for pattern in config["rule_files"]} <= set(targets)


# -- the fleet ---------------------------------------------------------------------------------------------------------


def test_the_fleet_is_reached_through_the_kubeconfig_that_the_simulation_writes() -> None:
    parsed = parse_documents(load(FLEET.read_bytes(), str(FLEET)))
    assert parsed.warnings == []
    assert len(parsed.clusters) >= 4
    (kubeconfig,) = [a.partition("=")[2] for a in PARTS["sim"]["command"] if a.startswith("--kubeconfig=")]
    for name, registration in parsed.clusters.items():
        assert (registration.access.kubeconfig, registration.access.context) == (kubeconfig, name)
        assert parsed.inventories[name].node_classes
    for reader in ("sim", "inventory", "dispatcher"):
        mounts = [v.split(":")[:2] for v in PARTS[reader]["volumes"]]
        assert ["kubeconfig", str(Path(kubeconfig).parent)] in mounts
