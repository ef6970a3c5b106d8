"""Replication files: what they mean, and one clear line for everything that they cannot mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from asyncpush.errors import AsyncpushError, DocumentError, UsageError
from asyncpush.replication.document import ReplicationDocument, replication_schema
from asyncpush.replication.load import ReplicationFile, load_replication
from asyncpush.replication.rules import Destination, Rule

HOST = "111122223333.dkr.ecr.eu-central-1.amazonaws.com"
EXAMPLE = f"""\
version: 1
registry: {HOST}
rules:
  - prefixes: [team/, base]
    destinations:
      - region: us-east-1
      - {{region: eu-central-1, account: "444455556666"}}
  - destinations: [{{region: eu-west-1}}]
"""


def load(folder: Path, text: str) -> ReplicationFile:
    path = folder / "rules.yaml"
    path.write_text(text)
    return load_replication(path)


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        load(folder, text)
    return [str(problem) for problem in caught.value.problems]


def test_a_file_gives_rules(tmp_path: Path) -> None:
    loaded = load(tmp_path, EXAMPLE)
    assert loaded.registry.host == HOST
    assert loaded.rules == (
        Rule(
            frozenset(
                {
                    Destination("111122223333", "us-east-1"),
                    Destination("444455556666", "eu-central-1"),
                }
            ),
            frozenset({"team/", "base"}),
        ),
        Rule(frozenset({Destination("111122223333", "eu-west-1")})),
    )


def test_no_rules_are_rules_too(tmp_path: Path) -> None:
    assert load(tmp_path, f"version: 1\nregistry: {HOST}\nrules: []\n").rules == ()


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "message"),
    [
        ("prefixes:", "prefixs:", 4, "rules.0.prefixs", "did you mean prefixes"),
        ("region: us-east-1", "regon: us-east-1", 6, "destinations.0", "region is missing"),
        ("us-east-1", "us-east1", 6, "destinations.0.region", "'us-east1' is no AWS Region"),
        ("us-east-1", "cn-north-1", 6, "destinations.0.region", "another AWS partition"),
        ("us-east-1", "eu-central-1", 6, "destinations.0", "is the registry itself"),
        ('"444455556666"', "444455556666", 7, "destinations.1.account", "must be a text"),
        ('"444455556666"', '"4444"', 7, "destinations.1.account", "'4444' is no AWS account"),
        ("team/", "team/*", 4, "rules.0.prefixes.0", "'team/*' is no prefix"),
        ("team/", "t", 4, "rules.0.prefixes.0", "'t' is no prefix"),
        ("base", "team/", 4, "rules.0.prefixes.1", "for the second time"),
        ("[team/, base]", "[]", 4, "rules.0.prefixes", "at least 1 item"),
        ("[{region: eu-west-1}]", "[]", 8, "rules.1.destinations", "at least 1 item"),
        (HOST, "example.com", 2, "registry", "no ECR reference"),
        (HOST, "docker://example.com", 2, "registry", "is not ECR's"),
        (HOST, f"{HOST}/team", 2, "registry", "more than a host"),
        ("version: 1", "version: 2", 1, "version", "input should be 1"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(
    tmp_path: Path, old: str, new: str, line: int, key: str, message: str
) -> None:
    found = problems(tmp_path, EXAMPLE.replace(old, new, 1))
    fitting = [one for one in found if message in one]
    assert fitting, found
    assert f"rules.yaml:{line}" in fitting[0]
    assert key in fitting[0]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = EXAMPLE.replace("us-east-1", "nowhere").replace("base", "BASE")
    assert len(problems(tmp_path, text)) == 2


def test_what_stands_twice_is_a_mistake(tmp_path: Path) -> None:
    text = EXAMPLE + "  - destinations: [{region: eu-west-1}, {region: eu-west-1}]\n"
    found = problems(tmp_path, text)
    assert any("111122223333 in eu-west-1 is here for the second time" in one for one in found)
    assert any("the rule is here for the second time" in one for one in found)


def test_more_destinations_than_a_registry_takes_are_a_mistake(tmp_path: Path) -> None:
    rules = [
        {"destinations": [{"region": "us-east-1", "account": f"{i:012}"}]} for i in range(20)
    ] + [{"destinations": [{"region": f"us-east-{i}"} for i in range(1, 7)]}]
    document = {"version": 1, "registry": HOST, "rules": rules}
    (found,) = problems(tmp_path, yaml.safe_dump(document))
    assert "26 different destinations" in found


def test_an_unreadable_file_is_called_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the replication file cannot be read"):
        load_replication(tmp_path / "none.yaml")


def test_the_schema_is_strict_and_has_the_limits() -> None:
    schema = replication_schema()
    assert set(schema["required"]) == {"version", "registry", "rules"}
    assert schema["additionalProperties"] is False
    assert schema["properties"]["rules"]["maxItems"] == 25


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("us-east-1")
KEYS = st.sampled_from([*ReplicationDocument.model_fields, "region", "account", "destinations"])
DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner), max_leaves=12
)


@given(DOCUMENTS)
def test_whatever_a_file_holds_is_rules_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, document: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.yaml"
    path.write_text(yaml.safe_dump(document))
    error = ""
    try:
        load_replication(path)
    except AsyncpushError as exc:
        error = str(exc)
    assert "\n" not in error
