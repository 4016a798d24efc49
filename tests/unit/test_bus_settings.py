"""Kafka settings: from the environment, checked at once, and what a connection error says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from gpufleet.bus.broker import BusUnavailable, _Causes, _Noise, build_broker, client_options, explain
from gpufleet.bus.settings import KafkaSettings, default_instance


def test_defaults_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KafkaSettings().servers == ["127.0.0.1:9092"]
    monkeypatch.setenv("GPUFLEET_KAFKA_BOOTSTRAP", "a:1, b:2")
    monkeypatch.setenv("GPUFLEET_KAFKA_SESSION_TIMEOUT", "6")
    settings = KafkaSettings()
    assert settings.servers == ["a:1", "b:2"]
    assert settings.heartbeat_interval == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"bootstrap": " , "}, "bootstrap is empty"),
        ({"bootstrap": "kafka"}, "write host:port, for example kafka:9092"),
        ({"tls_cert_file": Path("x")}, "go together"),
        ({"security_protocol": "SASL_SSL"}, "needs sasl_username"),
        ({"idempotence": "maybe"}, "idempotence"),
        ({"session_timeout": 0}, "session_timeout"),
    ],
)
def test_mistakes_are_named(values: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        KafkaSettings(**values)  # type: ignore[arg-type]


def test_password_is_not_shown_and_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from-file\n")
    common = {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "u", "sasl_password": "in-clear"}
    settings = KafkaSettings(**common)  # type: ignore[arg-type]
    assert "in-clear" not in repr(settings)
    assert settings.password() == "in-clear"
    settings = KafkaSettings(**common, sasl_password_file=file)  # type: ignore[arg-type]
    options = client_options(settings, "c")
    assert (options["sasl_plain_password"], options["sasl_mechanism"]) == ("from-file", "SCRAM-SHA-512")


@pytest.mark.parametrize("name", ["tls_ca_file", "sasl_password_file"])
def test_missing_files_are_a_clear_error(name: str) -> None:
    values = {"security_protocol": "SASL_SSL", "sasl_username": "u", name: Path("/nowhere/file")}
    with pytest.raises(BusUnavailable, match="files for Kafka cannot be read"):
        build_broker(KafkaSettings(**values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cause", "hint"),
    [
        ("[Errno 111] Connect call failed ('127.0.0.1', 1)", "nothing listens there"),
        ("[Errno -2] Name or service not known", "host name is not known"),
        ("[Error 58] SaslAuthenticationFailed: invalid credentials", "refuses the user or password"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "certificate is not trusted"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "does this port speak TLS"),
        ("Connection at kafka:9093 closed", "is it still starting, or is this a TLS or SASL port"),
        ("TimeoutError", "no answer in time"),
        ("something else", "check bootstrap"),
    ],
)
def test_connection_errors_say_what_to_look_at(cause: str, hint: str) -> None:
    text = explain(KafkaSettings(bootstrap="kafka:9093"), cause)
    assert text.startswith("Kafka at kafka:9093 cannot be used: ")
    assert cause in text
    assert hint in text


def test_noise_is_limited_and_counted() -> None:
    now = 0.0
    noise = _Noise(lambda: now)
    causes = _Causes()
    noise.watchers.append(causes)

    def line(text: str, level: int = logging.ERROR) -> logging.LogRecord:
        return logging.LogRecord("aiokafka", level, "", 0, "failed %s", (text,), None)

    passed = [noise.filter(line(str(number))) for number in range(100)]
    assert passed == [True] + [False] * 99
    assert causes.last == "failed 99"  # what is not logged is known nevertheless
    assert noise.filter(line("x", logging.DEBUG))
    now = 11.0
    record = line("again")
    assert noise.filter(record)
    assert record.getMessage() == "failed again (and 99 more like this)"


def test_instances_differ() -> None:
    assert default_instance() != default_instance()
