"""The settings of what is fetched: what is wrong is told by name, and collectors get the secrets that nobody else does."""

from __future__ import annotations

from importlib import import_module

import msgspec
import pytest
from pydantic import ValidationError

from models.settings.all import Settings
from models.settings.processes import COLLECTOR
from services.ingest.sources.source import Source
from services.ingest.sources.table import SOURCES, wanted
from services.settings.load import Loaded
from services.settings.refusals import refusals
from services.wiring.actors import plan

ALERTMANAGER = {"name": "prod", "url": "https://alertmanager:9093"}
TAXII = {"name": "feed", "url": "https://taxii.example/api1/collections/1"}
SENTINEL = {"enabled": True, "endpoint": "sentinel:9090"}
SHIELD = {"enabled": True, "endpoint": "https://shield:8443"}
EDGE = {"enabled": True, "endpoints": ["edge-1:9090"]}
ALL = {
    "pull": {
        "alertmanager": [{**ALERTMANAGER, "username": "ann", "password": "s3cret-one"}],
        "taxii": [{**TAXII, "token": "s3cret-two"}],
    },
    "integrations": {
        "llm_sentinel": {**SENTINEL, "auth_token": "s3cret-three"},
        "llm_shield": SHIELD,
        "llm_edge_agent": EDGE,
    },
}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"pull": {"alertmanager": [{**ALERTMANAGER, "url": "alertmanager:9093"}]}},
            "http:// or https:// URL",
        ),
        ({"pull": {"alertmanager": [{**ALERTMANAGER, "url": "http://a:b@c"}]}}, "without user and password"),
        ({"pull": {"alertmanager": [ALERTMANAGER, ALERTMANAGER]}}, "'prod' is there twice"),
        ({"pull": {"alertmanager": [{**ALERTMANAGER, "matchers": ["=x"]}]}}, "bad matcher format"),
        ({"pull": {"alertmanager": [{**ALERTMANAGER, "username": "x"}]}}, "username and password together"),
        ({"pull": {"alertmanager": [{**ALERTMANAGER, "token": "x", "username": "x"}]}}, "either a token"),
        ({"pull": {"taxii": [{**TAXII, "cert_file": "/x"}]}}, "cert_file and key_file together"),
        ({"pull": {"taxii": [{**TAXII, "added_after": "yesterday"}]}}, "should match pattern"),
        ({"pull": {"taxii": [{**TAXII, "name": "Feed 1"}]}}, "should match pattern"),
        ({"integrations": {"llm_sentinel": {"endpoint": "sentinel"}}}, "a host and a port"),
        ({"integrations": {"llm_sentinel": {"endpoint": "https://sentinel:9090/x"}}}, "a host and a port"),
        ({"integrations": {"llm_sentinel": {"protocol": "http"}}}, "'grpc'"),
        ({"integrations": {"llm_shield": {"endpoint": "shield:8443"}}}, "http:// or https:// URL"),
        ({"integrations": {"llm_shield": {**SHIELD, "protocol": "http"}}}, "begins with http://"),
        ({"integrations": {"llm_edge_agent": {"endpoints": ["a:1", "a:1"]}}}, "a:1 is there twice"),
    ],
)
def test_what_is_wrong_is_told_in_words(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Settings.model_validate(given)

    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"llm_sentinel": {**SENTINEL, "auth_token_env": "NO_SUCH_TOKEN"}}, "no such variable"),
        ({"llm_shield": {"tls_cert": "/x"}}, "tls_cert and tls_key together"),
        ({"llm_edge_agent": {"enabled": True, "discovery_mode": "consul"}}, 'only "static" is built'),
    ],
)
def test_what_nothing_is_started_with(given: dict[str, object], said: str) -> None:
    [found] = refusals(Loaded(Settings.model_validate({"integrations": given}), {}, None).settings)

    assert said in found


def test_a_source_is_opened_only_when_something_is_to_be_fetched_and_each_can_be() -> None:
    assert wanted(Settings()) == []
    assert {row.name for row in wanted(Settings.model_validate(ALL))} == {
        "alertmanager", "taxii", "llm-sentinel", "llm-shield", "llm-edge-agent",
    }  # fmt: skip
    off = {"llm_sentinel": {**SENTINEL, "enabled": False}, "llm_shield": {"enabled": True}}
    assert wanted(Settings.model_validate({"integrations": off})) == []
    for row in SOURCES:
        module, _, name = row.place.partition(":")
        assert issubclass(getattr(import_module(module), name), Source)


def test_collectors_get_the_secrets_and_nobody_else_does() -> None:
    for actor in plan(Settings.model_validate(ALL)):
        found = {each for each in (b"s3cret-one", b"s3cret-two", b"s3cret-three") if each in actor.config}
        assert len(found) == (3 if actor.kind == COLLECTOR else 0), actor.name
        if actor.kind == COLLECTOR:
            assert "s3cret" not in msgspec.msgpack.decode(actor.config)["settings"]
