"""/openapi.json is whole and true: schemathesis sends what it allows and what it does not, over a real socket."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from models.settings.all import Settings
from services.api.v1.verb_table import VERBS
from services.ingest.formats.paths import paths_of
from services.ingest.formats.table import all_formats
from tests.api.gateway_in_process import System, alert, system

CONFORMS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: To a path of over 64 KiB: the server's own words, before anything of ours is asked.
UNREAD = "Invalid HTTP request received."
#: Not in our document: Alertmanager's own openapi.yaml has the reads of /api/v2, and probes read no document.
ELSEWHERE = {
    "/v2/alerts/count",
    "/api/v2/alerts/groups",
    "/api/v2/status",
    "/api/v2/receivers",
    "/api/v2/silences",
    "/api/v2/silence/{silence_id}",
    "/-/healthy",
    "/-/ready",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/openapi.json",
}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[System, str]]:
    """A gateway with some incidents, and its URL."""
    with serving() as found:
        yield found


@contextmanager
def serving() -> Iterator[tuple[System, str]]:
    """In a thread: schemathesis blocks while it waits for answers."""
    begun, ended = threading.Event(), threading.Event()
    found: list[tuple[System, str]] = []

    async def serve() -> None:
        async with system() as ours:
            await ours.post(
                "/v1/alerts", [alert(f"Alert{number}", ("api", "db")[number % 2]) for number in range(5)]
            )
            found.append((ours, f"http://127.0.0.1:{await ours.listen()}"))
            begun.set()
            while not ended.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert begun.wait(20)
        yield found[0]
    finally:
        ended.set()
        thread.join(20)


@pytest.fixture(scope="module")
def described(served: tuple[System, str]) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{served[1]}/openapi.json")


FEW = settings(
    # Of each of some sixty operations; most share their parameters and the fields of their bodies.
    max_examples=15,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
OPERATIONS = [
    ("POST", "/v1/alerts"),
    ("POST", "/api/v2/alerts"),
    ("GET", "/v1/incidents"),
    ("GET", "/v1/incidents/{incident_id}"),
    ("GET", "/v1/incidents/{incident_id}/alerts"),
    ("GET", "/v1/incidents/{incident_id}/timeline"),
    ("GET", "/v1/alerts"),
    ("GET", "/v1/stats"),
    ("GET", "/v1/targets"),
    ("GET", "/v1/incidents/{incident_id}/report"),
    ("GET", "/v1/analytics/incidents"),
    ("POST", "/graphql"),
    ("POST", "/v1/incidents"),
    ("POST", "/v1/incidents/bulk"),
    *[("POST", f"/v1/incidents/{{incident_id}}/{verb.name}") for verb in VERBS],
]


#: With the first of these tokens are on: for a system of their own.
TOKEN_OPERATIONS = [
    ("GET", "/v1/tokens"),
    ("POST", "/v1/tokens"),
    ("DELETE", "/v1/tokens/{token_id}"),
    ("POST", "/v1/tokens/{token_id}/rotate"),
]


@pytest.fixture(scope="module")
def guarded(described: schemathesis.BaseSchema) -> Iterator[tuple[str, str]]:
    """The URL of a gateway with tokens on, which describes itself as the other one does, and an admin's secret."""
    with serving() as (_ours, url):
        admin = {"name": "admin", "scopes": ["admin"]}
        secret = str(requests.post(f"{url}/v1/tokens", json=admin, timeout=5).json()["token"])
        assert requests.get(f"{url}/openapi.json", timeout=5).json() == described.raw_schema
        yield url, secret


# schemathesis' own pytest decorator fails with pytest 9.2 ("'Function' object has no attribute '_nodeid'").
# Nine tenths of the time goes into making a case, so each is sent to all who may answer it.
@pytest.mark.parametrize(("method", "path"), [*OPERATIONS, *TOKEN_OPERATIONS])
def test_every_answer_to_what_the_document_allows_is_in_it_and_with_tokens_on_nobody_gets_one(
    described: schemathesis.BaseSchema, guarded: tuple[str, str], method: str, path: str
) -> None:
    url, secret = guarded

    @FEW
    @given(case=described[path][method].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def conforms(case: schemathesis.Case[Any]) -> None:
        if (method, path) in OPERATIONS:
            check(case, case.call(), CONFORMS)
        for name in [name for name in case.headers if name.lower() == "authorization"]:
            del case.headers[name]
        by_admin = case.call(base_url=url, headers={"Authorization": f"Bearer {secret}"})
        by_nobody = case.call(base_url=url)
        if by_nobody.text == UNREAD:
            return
        for answer in (by_admin, by_nobody):
            case.validate_response(answer, checks=CONFORMS)
        assert by_admin.status_code != 401
        assert by_nobody.status_code == 401

    conforms()


# Of what has no parameters nothing can be wrong.
@pytest.mark.parametrize(("method", "path"), [each for each in OPERATIONS if each != ("GET", "/v1/targets")])
def test_what_the_document_does_not_allow_gets_no_5xx_and_no_answer_that_it_does_not_have(
    described: schemathesis.BaseSchema, method: str, path: str
) -> None:
    checks = CONFORMS if method == "POST" else [*CONFORMS, negative_data_rejection]

    @FEW
    @given(case=described[path][method].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def conforms(case: schemathesis.Case[Any]) -> None:
        check(case, case.call(), checks)

    conforms()


def check(case: schemathesis.Case[Any], answer: schemathesis.Response, checks: list[Any]) -> None:
    if answer.text != UNREAD:
        case.validate_response(answer, checks=checks)


#: What a schema can't say: the order of two fields, the years of a time, bytes rather than characters.
BEYOND_JSON_SCHEMA = (
    "start time must be before end time",
    "ends_at: expected a time after starts_at",
    "between 1970 and 2100",
    "bytes",
    "at least one label",
)


@pytest.mark.parametrize("path", ["/v1/alerts", "/api/v2/alerts"])
def test_what_the_document_allows_is_taken(described: schemathesis.BaseSchema, path: str) -> None:
    @FEW
    @given(case=described[path]["POST"].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def taken(case: schemathesis.Case[Any]) -> None:
        if case.media_type == "application/json" and not case.headers.get("Content-Encoding"):
            case.headers.pop("Idempotency-Key", None)  # one that comes again with other alerts is 422
            answer = case.call()
            assert answer.status_code in (200, 202) or any(
                words in answer.text for words in BEYOND_JSON_SCHEMA
            ), answer.text

    taken()


def test_every_path_is_in_our_document_or_in_a_description_that_is_named(served: tuple[System, str]) -> None:
    ours, url = served
    paths = requests.get(f"{url}/openapi.json", timeout=5).json()["paths"]

    routes = {route.path_format for route in ours.gateway.rest.router.routes}  # type: ignore[attr-defined]
    doors = {path for form in all_formats().values() for path in paths_of(form)}
    assert doors <= set(paths)
    assert (routes | doors) - ELSEWHERE == set(paths)
    for path, methods in paths.items():
        for method, operation in methods.items():
            assert operation.get("description") or operation.get("summary"), (method, path)
            assert {"503"} <= set(operation["responses"]) and len(operation["responses"]) > 2, (method, path)


def test_the_examples_of_the_document_are_taken(served: tuple[System, str]) -> None:
    _, url = served
    paths = requests.get(f"{url}/openapi.json", timeout=5).json()["paths"]
    sent = 0

    for path in ("/v1/alerts", "/api/v2/alerts"):
        for content_type, content in paths[path]["post"]["requestBody"]["content"].items():
            examples = [each["value"] for each in content.get("examples", {}).values()] or [
                content["example"]
            ]
            for example in examples:
                given = {"data": example.encode()} if isinstance(example, str) else {"json": example}
                answer = requests.post(
                    f"{url}{path}", headers={"Content-Type": content_type}, timeout=5, **given
                )
                assert answer.status_code in (200, 202), answer.text
                sent += 1
    assert sent == 5


def test_every_field_and_every_parameter_of_our_routes_is_described(served: tuple[System, str]) -> None:
    document = requests.get(f"{served[1]}/openapi.json", timeout=5).json()
    # Settings are described by docs/configuration.md, which is made from the same schema.
    of_settings = {"Settings", *Settings.model_json_schema()["$defs"]}

    bare = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        if name not in of_settings
        for field, said in schema.get("properties", {}).items()
        if not said.get("description")
    ]
    bare += [
        f"{method} {path} {parameter['name']}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for parameter in operation.get("parameters", [])
        if not parameter.get("description")
    ]

    assert not bare


def test_every_reference_of_the_document_leads_somewhere(served: tuple[System, str]) -> None:
    text = requests.get(f"{served[1]}/openapi.json", timeout=5).text
    schemas = json.loads(text)["components"]["schemas"]

    assert set(re.findall(r"#/components/schemas/(\w+)", text)) <= set(schemas)


def test_every_request_that_changes_something_has_an_example_that_fits_its_schema(
    served: tuple[System, str],
) -> None:
    document = requests.get(f"{served[1]}/openapi.json", timeout=5).json()

    for path, methods in document["paths"].items():
        if "post" in methods and path.startswith("/v1/incidents"):
            content = methods["post"]["requestBody"]["content"]["application/json"]
            jsonschema.validate(
                content["example"], {**content["schema"], "components": document["components"]}
            )


def test_every_error_of_a_verb_is_in_the_document(served: tuple[System, str]) -> None:
    paths = requests.get(f"{served[1]}/openapi.json", timeout=5).json()["paths"]

    for verb in VERBS:
        answers = paths[f"/v1/incidents/{{incident_id}}/{verb.name}"]["post"]["responses"]
        assert {"400", "404", "408", "409", "412", "413", "415", "422", "4XX", "503"} < set(answers)
        for status, answer in answers.items():
            kind = "application/json" if status.startswith("2") else "application/problem+json"
            assert set(answer["content"]) == {kind}, (verb.name, status)


def test_every_kind_of_answer_of_the_doors_fits_its_schema(served: tuple[System, str]) -> None:
    _, url = served
    document = requests.get(f"{url}/openapi.json", timeout=5).json()
    good: Any = alert("Kinds")
    bad: Any = {"labels": {"a": 1}}
    used = {"Idempotency-Key": "used"}
    for path in ("/v1/alerts", "/api/v2/alerts"):
        requests.post(f"{url}{path}", json=[alert("Before")], headers=used, timeout=5)
    requests_made: list[tuple[str, int, Callable[[], requests.Response]]] = [
        ("/v1/alerts", 202, lambda: requests.post(f"{url}/v1/alerts", json=good, timeout=5)),
        ("/v1/alerts", 207, lambda: requests.post(f"{url}/v1/alerts", json=[good, bad], timeout=5)),
        ("/v1/alerts", 400, lambda: requests.post(f"{url}/v1/alerts", json=[bad], timeout=5)),
        ("/v1/alerts", 400, lambda: requests.post(f"{url}/v1/alerts", json=5, timeout=5)),
        ("/v1/alerts", 413, lambda: requests.post(f"{url}/v1/alerts", json="x" * 17_000_000, timeout=5)),
        ("/v1/alerts", 415, lambda: requests.post(f"{url}/v1/alerts", data="x", timeout=5)),
        ("/v1/alerts", 422, lambda: requests.post(f"{url}/v1/alerts", json=good, headers=used, timeout=5)),
        (
            "/api/v2/alerts",
            422,
            lambda: requests.post(f"{url}/api/v2/alerts", json=[good], headers=used, timeout=5),
        ),
        ("/api/v2/alerts", 200, lambda: requests.post(f"{url}/api/v2/alerts", json=[good], timeout=5)),
        ("/api/v2/alerts", 400, lambda: requests.post(f"{url}/api/v2/alerts", json=[good, bad], timeout=5)),
        ("/api/v2/alerts", 400, lambda: requests.post(f"{url}/api/v2/alerts", json=5, timeout=5)),
        (
            "/api/v2/alerts",
            413,
            lambda: requests.post(f"{url}/api/v2/alerts", json="x" * 17_000_000, timeout=5),
        ),
        ("/api/v2/alerts", 415, lambda: requests.post(f"{url}/api/v2/alerts", data="x", timeout=5)),
    ]

    for path, status, request in requests_made:
        answer = request()
        assert answer.status_code == status, answer.text
        content = document["paths"][path]["post"]["responses"][str(status)].get("content")
        if content is None:
            assert not answer.content
            continue
        named = content[answer.headers["content-type"]]["schema"]
        jsonschema.validate(answer.json(), {**named, "components": document["components"]})
