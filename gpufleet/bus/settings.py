"""How to reach Kafka and how to behave there: `GPUFLEET_KAFKA_…`, or section `kafka` of the settings file."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path
from typing import ClassVar, Literal
from uuid import uuid4

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from gpufleet.telemetry.settings import FleetSettings


def default_instance() -> str:
    """An id for this process that no other one has: host, process id, some random digits."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"


class KafkaSettings(FleetSettings):
    """Connection, security, timing. Times in seconds unless the name says otherwise."""

    section: ClassVar[str] = "kafka"
    model_config = SettingsConfigDict(env_prefix="GPUFLEET_KAFKA_", extra="ignore")

    bootstrap: str = Field("127.0.0.1:9092", description="host:port of one or more brokers, separated by commas")
    client_id: str = Field("gpufleet", description="name shown in the broker's logs and quotas")
    topic_prefix: str = Field("", description="put before every topic and group, so that fleets can share a broker")
    replication_factor: int = Field(1, ge=1, description="for topics that are created; 3 on a cluster of brokers")
    shards: int | None = Field(
        None,
        ge=1,
        description="partitions of the topics that are divided by cluster, 16 unless said; for topics that are "
        "created, those that are there keep theirs",
    )

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="SSL: TLS; SASL: user name and password"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="how the password is proven, where SASL is used"
    )
    sasl_username: str = Field("", description="needed where SASL is used")
    sasl_password: SecretStr = Field(SecretStr(""), description="its password")
    sasl_password_file: Path | None = Field(None, description="file that holds the password, instead of the variable")
    tls_ca_file: Path | None = Field(None, description="CA certificates; absent: those of the system")
    tls_cert_file: Path | None = Field(None, description="client certificate, with its key in tls_key_file")
    tls_key_file: Path | None = Field(None, description="key of the client certificate")
    tls_check_hostname: bool = Field(True, description="whether brokers must have the name by which they are reached")

    session_timeout: float = Field(
        15.0, gt=0, description="a member silent for so long has left its group; nobody sends after 2/3 of it"
    )
    fetch_wait_ms: int = Field(
        500, ge=1, description="how long the broker may hold a fetch; 20 on the embedded broker, which does not wake it"
    )
    idempotence: Literal["auto", "on", "off"] = Field(
        "auto", description="auto: on unless the broker refuses to give a producer id, as the embedded one does"
    )
    isolation: Literal["read_committed", "read_uncommitted"] = Field(
        "read_committed", description="whether records of aborted transactions of other producers are passed over"
    )
    linger_ms: int = Field(0, ge=0, description="wait so long for more records of a batch")
    request_timeout: float = Field(30.0, gt=0, description="for one request, and for a record that is not acknowledged")
    connect_timeout: float = Field(60.0, ge=0, description="how long to try for at start before giving up")

    @model_validator(mode="after")
    def _consistent(self) -> KafkaSettings:
        if not self.servers:
            raise ValueError("bootstrap is empty: give host:port of at least one broker")
        for server in self.servers:
            _, _, port = server.rpartition(":")
            if not port.isdigit():
                raise ValueError(f"bootstrap {server!r} has no port: write host:port, for example {server}:9092")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together: give both or none")
        if self.uses_sasl and not self.sasl_username:
            raise ValueError(f"security_protocol {self.security_protocol} needs sasl_username")
        return self

    @property
    def servers(self) -> list[str]:
        return [part.strip() for part in self.bootstrap.split(",") if part.strip()]

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol in ("SSL", "SASL_SSL")

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL")

    @property
    def heartbeat_interval(self) -> float:
        """Five beats in a session: two may be lost before the 2/3 after which nothing is sent."""
        return self.session_timeout / 5

    def password(self) -> str:
        """The SASL password. Raises OSError where its file cannot be read."""
        if self.sasl_password_file is not None:
            return self.sasl_password_file.read_text(encoding="utf-8").strip()
        return self.sasl_password.get_secret_value()

    def ssl_context(self) -> ssl.SSLContext | None:
        """None without TLS. Raises OSError or ssl.SSLError for files that are missing or no certificates."""
        if not self.uses_tls:
            return None
        context = ssl.create_default_context(cafile=str(self.tls_ca_file) if self.tls_ca_file else None)
        if self.tls_cert_file is not None and self.tls_key_file is not None:
            context.load_cert_chain(str(self.tls_cert_file), str(self.tls_key_file))
        context.check_hostname = self.tls_check_hostname
        return context
