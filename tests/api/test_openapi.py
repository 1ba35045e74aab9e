"""/openapi.json is whole and true: schemathesis sends what it allows and what it does not, over a real gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig, SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.gateway_in_process import Gateway, system


@pytest.fixture(scope="module")
def app() -> Iterator[object]:
    """The gateway's ASGI application, in a loop of its own, as uvicorn would call it."""
    import asyncio

    with asyncio.Runner() as runner:
        manager = system()
        ours = runner.run(manager.__aenter__())
        yield ours, runner
        runner.run(manager.__aexit__(None, None, None))


def test_every_path_is_documented_here_or_by_alertmanagers_own_description(app: tuple[object, object]) -> None:
    ours, runner = app
    document = runner.run(ours.get("/openapi.json")).json  # type: ignore[attr-defined]

    paths = {path: sorted(methods) for path, methods in document["paths"].items()}
    assert paths == {
        "/v1/alerts": ["post"],
        "/api/v2/alerts": ["post"],
        "/v1/incidents": ["get"],
        "/v1/incidents/{incident_id}": ["get"],
        "/v1/incidents/{incident_id}/alerts": ["get"],
        "/v1/incidents/{incident_id}/timeline": ["get"],
    }
    print(json.dumps(paths))
