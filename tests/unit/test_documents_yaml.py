"""Reading YAML and JSON: what values mean, and where a problem is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpufleet.wire import yaml
from gpufleet.wire.documents_errors import DocumentErrors


def manifests(text: str | bytes) -> list[Any]:
    return [document.manifest for document in yaml.load_strict(text, "f.yaml")]


def problems(text: str | bytes) -> list[str]:
    return [str(error) for document in yaml.load(text, "f.yaml") for error in document.errors]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on", True),
        ("No", False),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0644", 420),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        ("12:30", "12:30"),
        ("2026-01-31", "2026-01-31"),
        ("8Gi", "8Gi"),
        ("'12'", "12"),
        ("${Cluster 1 ID}", "${Cluster 1 ID}"),
        ("<RegionID>", "<RegionID>"),
        ("1.2.3", "1.2.3"),
        ("{on: 1, 5: x}", {"on": 1, "5": "x"}),
    ],
)
def test_values(text: str, expected: Any) -> None:
    assert manifests(f"a: {text}\n") == [{"a": expected}]


@pytest.mark.parametrize(
    "text",
    ["", "---\n---\n", "# only a comment\n", "---\n# c\n---\n...\n", "\ufeff", "null"],
)
def test_nothing(text: str) -> None:
    assert manifests(text) == []


def test_documents_count_what_is_there() -> None:
    documents = yaml.load("# head\na: 1\n---\n\n---\n# c\nb: 2\n--- {c: 3}\n", "f")
    assert [(d.index, d.manifest, d.line_of("b")) for d in documents] == [
        (1, {"a": 1}, 2),
        (2, {"b": 2}, 7),
        (3, {"c": 3}, 8),
    ]


def test_a_marker_inside_a_text_is_no_marker() -> None:
    assert manifests("a: |\n  x\n  ---\n  y\nb: 1\n") == [{"a": "x\n---\ny\n", "b": 1}]


def test_merge_keys_and_anchors() -> None:
    assert manifests("base: &b {x: 1, y: 2}\nc: {<<: *b, y: 3}\nd: [*b, *b]") == [
        {"base": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}, "d": [{"x": 1, "y": 2}] * 2}
    ]


def test_json_one_after_another() -> None:
    text = '{"a": 1,\n "b": [1, 2.5, null]}\n\n{"c": "x"}\n'
    assert manifests(text) == [{"a": 1, "b": [1, 2.5, None]}, {"c": "x"}]
    first, second = yaml.load(text, "f")
    assert (first.line_of("b[1]"), second.line_of("c")) == (2, 4)


def test_json_with_tabs_is_json() -> None:
    assert manifests(json.dumps({"a": {"b": 1}}, indent="\t")) == [{"a": {"b": 1}}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", ["f.yaml, document 1, line 3: the key 'a' is already on line 1; keep one of them"]),
        ('{"a": 1, "a": 2}', ["f.yaml, document 1, line 1: the key 'a' occurs twice in one object; keep one of them"]),
        ("x: 1\n---\na: [1\nb: 2\n", ["f.yaml, document 2, line 4: is not YAML: "]),
        ("a:\n\tb: 1\n", ["f.yaml, document 1, line 2: is not YAML: ", "indent with spaces instead of tabs"]),
        ("- a\n", ["f.yaml, document 1, line 1: is not a map; a document starts with apiVersion and kind"]),
        ("just text", ["is not a map"]),
        ("a: !!binary aGk=", ["the tag tag:yaml.org,2002:binary is not supported"]),
        ("a: !!python/object/apply:os.system [ls]", ["is not supported"]),
        ("a: &a [*a]", ["is too large or nested too deeply"]),
        ("? [1]\n: x", ["a key must be a text"]),
        ("[" * 5000, ["is nested too deeply"]),
        ("a: " + "9" * 6000, ["is not a number"]),
        (b"a: \xff\n", ["f.yaml, document 1, line 1: byte 3 is not UTF-8"]),
        ("a: \x00", ["is not YAML"]),
    ],
)
def test_what_cannot_be_read(text: str | bytes, expected: list[str]) -> None:
    found = problems(text)
    assert len(found) == 1
    for part in expected:
        assert part in found[0]
    with pytest.raises(DocumentErrors):
        yaml.load_strict(text)


def test_aliases_cannot_explode() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert ["too large" in problem for problem in problems("\n".join(lines))] == [True]


def test_one_broken_document_hides_no_other() -> None:
    documents = yaml.load("a: [\n---\nb: 1\n---\n'\n---\nc: 2\n", "f")
    assert [bool(d.errors) for d in documents] == [True, False, True, False]
    assert [d.manifest for d in documents] == [{}, {"b": 1}, {}, {"c": 2}]


def test_lines_of_fields() -> None:
    text = "---\nspec:\n  list:\n  - name: a\n  - name: b\n    limits:\n      nvidia.com/gpu: 8\n"
    document = yaml.load(text, "f")[0]
    lines = {
        "": 2,
        "spec": 2,
        "spec.list[1]": 5,
        "spec.list[1].name": 5,
        "spec.list[1].limits[nvidia.com/gpu]": 7,
        "spec.list[1].limits.missing": 6,
        "spec.list[9].x": 3,
        "nothing": 2,
    }
    assert {path: document.line_of(path) for path in lines} == lines


def test_dump_is_read_back() -> None:
    values: list[dict[str, Any]] = [
        {"a": "on", "b": "012", "c": ["1.5", "", None, True], "d": "12:30", "e": "a: b\n#x\n", "f": "~"},
        {"g": 1},
    ]
    assert manifests(yaml.dump(values)) == values
    assert list(manifests(yaml.dump([{"z": 1, "a": 2}]))[0]) == ["z", "a"]
