"""The arguments of a service process: what ends at once, before anything is connected."""

from __future__ import annotations

import json
from typing import NoReturn

import pytest

from gpufleet.bus.process import USAGE, main
from services.inventory.settings import InventorySettings


def build(*_: object) -> NoReturn:
    raise AssertionError("the service was built")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["gpufleet-inventory", *arguments])
    main("inventory", InventorySettings, build)


@pytest.mark.parametrize("argument", ["--help", "-h"])
def test_help_needs_no_valid_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    monkeypatch.setenv("GPUFLEET_HTTP_PORT", "none")
    run(monkeypatch, argument)
    said = capsys.readouterr().out
    assert said.startswith("usage: gpufleet-inventory ")
    assert "--print-config" in said


def test_print_config_shows_what_is_in_force(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPUFLEET_KAFKA_BOOTSTRAP", "kafka:19092")
    run(monkeypatch, "--print-config")
    shown = json.loads(capsys.readouterr().out)
    assert shown.keys() == {"kafka", "process", "inventory"}
    assert shown["kafka"]["bootstrap"] == "kafka:19092"


def test_an_unknown_argument_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--verbose")
    assert ended.value.code == USAGE
    assert "unknown argument --verbose" in capsys.readouterr().err


def test_bad_settings_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GPUFLEET_HTTP_PORT", "none")
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch)
    assert ended.value.code == USAGE
    assert "GPUFLEET_HTTP_PORT (process.http_port): " in capsys.readouterr().err


def test_settings_that_do_not_fit_together_are_named_by_their_section(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPUFLEET_KAFKA_SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("GPUFLEET_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    with pytest.raises(SystemExit):
        run(monkeypatch)
    assert capsys.readouterr().err.startswith("gpufleet-inventory: kafka: ")
