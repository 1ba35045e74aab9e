"""Any JSON, by a mapping that an operator wrote (`[[formats.mappings]]`, docs/formats.md): JMESPath for each field of an alert."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult

from models.errors import Malformed
from models.settings.formats import JsonMapping
from services.ingest.formats.format import Request, Shared
from services.ingest.formats.values import text_of, time_of
from services.ingest.formats.webhook import Draft, Item, WebhookFormat

NAMED = "/v1/events/mapped/{mapping}"
OVER = frozenset(
    {"resolved", "ok", "closed", "recovered", "recovery", "up", "false", "0", "cleared", "inactive"}
)


class MappedFormat(WebhookFormat):
    name = "mapped"
    path = "/v1/events/mapped"
    more_paths = {NAMED: ("POST",)}
    summary = "Any JSON, by a mapping of the settings"
    shape = "what `when` of a mapping says"

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._compiled: dict[str, ParsedResult] = {}

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        mapping = self._of(body, request)
        members = self._find(mapping, "each", body) if mapping.each else [body]
        if not isinstance(members, list):
            raise Malformed(f"{_place(mapping, 'each')}: expected it to find a list")
        values = (
            (one, f"{mapping.name}[{place}]" if mapping.each else mapping.name)
            for place, one in enumerate(members)
        )
        return self.each(values, lambda one: self._alert(mapping, one.values))

    @property
    def is_asked(self) -> bool:
        """Whether any mapping says itself which bodies are its own."""
        return any(mapping.when for mapping in self.shared.settings.formats.mappings)

    def mapping_for(self, body: object) -> JsonMapping | None:
        """The first mapping whose `when` is true of a body."""
        for mapping in self.shared.settings.formats.mappings:
            # As JMESPath has it: nothing, false, "" and what is empty are false, 0 is not.
            if mapping.when and self._find(mapping, "when", body) not in (None, False, "", [], {}):
                return mapping
        return None

    def _of(self, body: object, request: Request) -> JsonMapping:
        mappings = self.shared.settings.formats.mappings
        own = f"{self.path}/"
        named = unquote(request.path.removeprefix(own)) if request.path.startswith(own) else ""
        found = (
            next((each for each in mappings if each.name == named), None) if named else self.mapping_for(body)
        )
        if found is None:
            known = ", ".join(each.name for each in mappings) or "none"
            raise Malformed(
                f"no mapping {'is named ' + repr(named[:40]) if named else 'is for this body'}; in the settings: {known}"
            )
        return found

    def _alert(self, mapping: JsonMapping, one: dict[str, object]) -> Draft:
        said = {
            name: self._text(mapping, name, one)
            for name in ("title", "description", "severity", "status", "url")
        }
        name, service = self._text(mapping, "alertname", one), self._text(mapping, "service", one)
        for field, value in (("alertname", name), ("service", service)):
            if not value:
                raise Malformed(f"{_place(mapping, field)}: expected it to find a string, it finds nothing")
        starts, ends = (self._time(mapping, each, one) for each in ("starts_at", "ends_at"))
        resolved = said["status"].lower() in OVER
        return self.alert(
            name,
            service,
            title=said["title"] or name,
            text=said["description"],
            severity=said["severity"],
            resolved=resolved,
            labels={
                label: self._read(mapping, f"labels.{label}", path, one)
                for label, path in mapping.labels.items()
            },
            notes={
                note: self._read(mapping, f"annotations.{note}", path, one)
                for note, path in mapping.annotations.items()
            },
            starts=starts,
            ends=ends,
            url=said["url"],
        )

    def _text(self, mapping: JsonMapping, field: str, one: object) -> str:
        expression: str = getattr(mapping, field)
        return self._read(mapping, field, expression, one) if expression else ""

    def _read(self, mapping: JsonMapping, field: str, expression: str, one: object) -> str:
        found = self._search(mapping, field, expression, one)
        if isinstance(found, list) and not any(isinstance(each, dict | list) for each in found):
            return ", ".join(text_of(each, _place(mapping, field)) for each in found)
        if isinstance(found, dict | list):
            return json.dumps(found)
        return text_of(found, _place(mapping, field))

    def _time(self, mapping: JsonMapping, field: str, one: object) -> float:
        expression: str = getattr(mapping, field)
        return (
            time_of(self._search(mapping, field, expression, one), _place(mapping, field))
            if expression
            else 0.0
        )

    def _find(self, mapping: JsonMapping, field: str, body: object) -> Any:
        return self._search(mapping, field, getattr(mapping, field), body)

    def _search(self, mapping: JsonMapping, field: str, expression: str, body: object) -> Any:
        try:
            compiled = self._compiled.get(expression)
            if compiled is None:
                compiled = self._compiled[expression] = jmespath.compile(expression)
            return compiled.search(body)
        except (JMESPathError, RecursionError, TypeError, ValueError, ArithmeticError) as error:
            raise Malformed(f"{_place(mapping, field)}: {type(error).__name__}: {str(error)[:120]}") from None


def wrong_mappings(mappings: Iterable[JsonMapping]) -> list[str]:
    """What is no JMESPath in mappings, and names that are there twice."""
    wrong, met = [], set()
    for mapping in mappings:
        if mapping.name in met:
            wrong.append(f"formats.mappings: there are two of the name {mapping.name!r}")
        met.add(mapping.name)
        plain = mapping.model_dump(exclude={"name", "labels", "annotations"})
        within: Mapping[str, Mapping[str, str]] = {
            "labels": mapping.labels,
            "annotations": mapping.annotations,
        }
        every = [
            *plain.items(),
            *((f"{part}.{name}", path) for part, pairs in within.items() for name, path in pairs.items()),
        ]
        for field, expression in every:
            try:
                if expression:
                    jmespath.compile(expression)
            except JMESPathError as error:
                words = str(error).strip().partition("\n")[0]
                wrong.append(f"{_place(mapping, field)}: expected JMESPath, not {expression!r}: {words}")
    return wrong


def _place(mapping: JsonMapping, field: str) -> str:
    return f"formats.mappings.{mapping.name}.{field}"
