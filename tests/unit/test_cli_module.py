"""`python -m gpufleet.cli` is the console script."""

from __future__ import annotations

import runpy

import pytest


def test_the_package_can_be_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["gpufleet", "plan", "-f", "nothing.yaml"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("gpufleet.cli", run_name="__main__")
    assert ended.value.code == 2
    assert "nothing.yaml" in capsys.readouterr().err
