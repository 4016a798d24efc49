"""Claims: the last one of a key counts, its offset is the epoch."""

from __future__ import annotations

import json

from gpufleet.bus.epochs import LOG_KEY, NONCE_HEADER, Claim, EpochTable, claim_key, encode_claim, encode_log_id
from gpufleet.bus.records import Record
from gpufleet.model.log import Claim as ContractClaim
from gpufleet.model.log import LogId
from gpufleet.wire.records_base import read_json
from gpufleet.wire.records_workloads import ClaimMessage


def record(offset: int, key: str | None, value: bytes | None, nonce: str = "") -> Record:
    return Record("epochs", 0, offset, key, value, {NONCE_HEADER: nonce} if nonce else {}, 0.0)


def claim(offset: int, instance: str, shard: int | None = None, nonce: str = "") -> Record:
    value = encode_claim("scheduler", shard, instance, 0.0)
    return record(offset, claim_key("scheduler", shard), value, nonce)


def test_last_claim_counts_per_key() -> None:
    table = EpochTable()
    table.apply([claim(0, "a"), claim(1, "a", 3), claim(2, "b", nonce="n")])
    assert table.highest("scheduler") == Claim("scheduler", "b", 2, "n")
    assert table.epoch("scheduler/3") == 1
    assert table.epoch("inventory") == -1
    assert table.highest("inventory") is None
    table.apply([claim(1, "c")])  # read again
    assert table.epoch("scheduler") == 2


def test_listeners_hear_of_changes_only() -> None:
    table, heard = EpochTable(), list[str]()
    table.on_change(heard.append)
    table.apply([claim(5, "a"), claim(5, "a"), claim(4, "a"), claim(6, "b", 1)])
    assert heard == ["scheduler", "scheduler/1"]


def test_first_id_of_the_log_stays() -> None:
    table = EpochTable()
    assert table.log_id is None
    table.apply([record(0, LOG_KEY, encode_log_id("x")), record(1, LOG_KEY, encode_log_id("y"))])
    assert table.log_id == "x"


def test_what_is_no_claim_claims_nothing() -> None:
    table = EpochTable()
    values = [None, b"", b"{", b"[]", b"null", b"{}", b'{"instance":1}', b'{"instance":""}']
    table.apply([record(n, "scheduler", value) for n, value in enumerate(values)])
    table.apply([record(9, None, encode_claim("s", None, "a", 0.0)), record(10, LOG_KEY, b'{"logId":3}')])
    assert table.highest("scheduler") is None
    assert table.log_id is None


def test_value_is_the_json_of_the_message() -> None:
    assert json.loads(encode_claim("inventory", 0, "host-1", 1.5)) == {
        "service": "inventory",
        "shard": 0,
        "instance": "host-1",
        "claimedAt": "1970-01-01T00:00:01.500Z",
    }
    assert "shard" not in json.loads(encode_claim("scheduler", None, "host-1", 0.0))
    assert json.loads(encode_log_id("x")) == {"logId": "x"}


def test_value_is_read_by_the_contract() -> None:
    read = read_json(ClaimMessage, encode_claim("inventory", 3, "host-1", 1.5)).to_model()
    assert read == ContractClaim("inventory", "host-1", 3, 1.5)
    assert read_json(ClaimMessage, encode_log_id("x")).to_model() == LogId("x")
