"""STIX 2.1 bundles. What was seen or is to be watched becomes an alert under the object's own id, revoked ones end; what only gives
context (identities, relationships, markings) is read for its names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from models.errors import Malformed
from services.ingest.formats.format import Request
from services.ingest.formats.values import Fields
from services.ingest.formats.webhook import Draft, Item, WebhookFormat

#: A whole feed is sent page by page; the largest example of OASIS has 49 KB.
BUNDLE_MAX_BYTES = 4 * 1024 * 1024
#: Characters of a name, and places of a sighting, in a title: a bundle may name a long one a thousand times.
NAME_CHARS = 120
PLACES_MAX = 10
#: What an object says of danger: somebody was hit, something is to be watched for, somebody exists.
TYPES = {
    "incident": "P1",
    "sighting": "P1",
    "observed-data": "P2",
    "indicator": "P3",
    "malware": "P3",
    "malware-analysis": "P3",
    "vulnerability": "P3",
    "infrastructure": "P3",
    "campaign": "P4",
    "intrusion-set": "P4",
    "threat-actor": "P4",
    "attack-pattern": "P4",
}


class StixFormat(WebhookFormat):
    name = "stix"
    path = "/v1/events/stix"
    content_types = ("application/json", "application/stix+json")
    summary = "STIX 2.1 bundles"
    shape = 'type "bundle" and objects'
    severities = {**TYPES, "critical": "P0", "high": "P1", "medium": "P2", "low": "P3"}
    max_bytes = BUNDLE_MAX_BYTES

    def drafts(self, body: object, request: Request) -> Iterable[Item]:
        bundle = Fields(body)
        if (kind := bundle.need("type")) != "bundle":
            raise Malformed(
                f'type: expected "bundle", got {kind[:40]!r}: put the object into the objects of a bundle'
            )
        return self.objects(bundle)

    def objects(self, bundle: Fields) -> Iterable[Item]:
        """The alerts of a bundle. Raises Malformed when it has none."""
        if not bundle.items("objects"):
            raise Malformed("objects: expected at least one object")
        names = self.names_of(bundle)
        found = False
        for item in self.each(bundle.members("objects"), lambda one: self.object_of(one, names)):
            found = True
            yield item
        if not found:
            raise Malformed(f"objects: expected one of {', '.join(TYPES)}; these only give context")

    @staticmethod
    def names_of(bundle: Fields) -> dict[str, str]:
        """What the objects of a bundle are called, by id."""
        return {
            one["id"]: one["name"][:NAME_CHARS]
            for one in bundle.items("objects")
            if isinstance(one, dict) and isinstance(one.get("id"), str) and isinstance(one.get("name"), str)
        }

    def object_of(self, one: Fields, names: Mapping[str, str]) -> Iterator[Draft]:
        kind, identity = one.need("type"), one.need("id")
        if not identity.startswith(f"{kind}--"):
            raise Malformed(f"{one.path('id')}: expected {kind}-- and a UUID, got {identity[:60]!r}")
        # The rest is context, or of a type that is still to come.
        if kind in TYPES:
            yield self._draft(one, kind, identity, names)

    def _draft(self, one: Fields, kind: str, identity: str, names: Mapping[str, str]) -> Draft:
        created, modified = one.time("created"), one.time("modified")
        if modified and modified < created:
            raise Malformed(f"{one.path('modified')}: expected a time not before created")
        of = one.text("sighting_of_ref")
        if kind == "sighting" and not of:
            one.need("sighting_of_ref")
        what = names.get(of, of) if of else one.text("name") or one.text("pattern") or kind
        where = [names.get(each, each) for each in one.texts("where_sighted_refs")[:PLACES_MAX]]
        starts = one.time("first_seen", "first_observed", "valid_from", "created")
        until = one.time("valid_until")
        return self.alert(
            f"stix-{kind}",
            one.text("x_service", "service") or "threat-intelligence",
            title=f"{kind.replace('-', ' ').capitalize()}: {what}"
            + (f", seen by {', '.join(where)}" if where else ""),
            text=one.text("description"),
            severity=one.text("severity", "x_severity") or kind,
            resolved=one.text("revoked") == "true",
            labels={"stix_id": identity, "category": "security"},
            notes={
                "created_by": names.get(one.text("created_by_ref"), one.text("created_by_ref")),
                "pattern": one.text("pattern"),
                "confidence": one.text("confidence"),
                "kinds": ", ".join(one.texts(f"{kind.replace('-', '_')}_types")),
                "labels": ", ".join(one.texts("labels")),
                "last_seen": one.text("last_seen", "last_observed"),
                "count": one.text("count", "number_observed"),
            },
            starts=starts,
            ends=until if until > starts else 0.0,
        )

    @classmethod
    def recognises(cls, body: object, headers: Mapping[bytes, bytes]) -> bool:
        # An object by itself is recognised too, to be told that it wants a bundle.
        return isinstance(body, dict) and (
            {"type", "objects"} <= body.keys() or {"type", "id", "spec_version"} <= body.keys()
        )
