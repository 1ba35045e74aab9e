"""Changes a service by the Kubernetes API.

Changes that would do something again when they are repeated note their key in an annotation of the object, in the same write: a
restart, a rollback, and a number of replicas relative to the one before. The write names the version of the object that it was
decided by; whoever changes it meanwhile makes it be decided anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from models.errors import Conflict, Malformed, NotFound, Stale
from models.playbook.work import Done
from models.ports import Clock
from services.playbooks.given import ServiceGiven
from services.playbooks.kind import succeeded
from services.playbooks.means.kubernetes_api import JSON_PATCH, KubernetesApi, apps, named
from services.playbooks.means.means import CONFIGURE, ISOLATE, RESTART, ROLLBACK, SCALE, SHIFT, Change
from services.times import timestamp

#: Keys of the last changes that were made of an object, by comma.
DONE = "llm-incident-manager.io/done"
#: How many replicas the change with the last key was to bring.
SCALED_TO = "llm-incident-manager.io/scaled-to"
#: What the last change found: JSON, of its action's key and the values before it.
BEFORE = "llm-incident-manager.io/before"
#: Characters of such a note. Kubernetes allows 256 KiB for all annotations of an object.
NOTE_MAX = 16 * 1024
#: As `kubectl rollout restart` writes it.
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"
#: Changes of one service that can be in doubt at the same time.
KEYS_KEPT = 10
#: Tries of a write whose object others change all the time.
WRITES_MAX = 5
ROUTES = "apis/gateway.networking.k8s.io/v1"
NETWORK = "apis/networking.k8s.io/v1"
_SECRET_NAME = re.compile(r"token|secret|passw|key|credential|auth", re.IGNORECASE)
_MASK = "***"


class KubernetesMeans:
    """Port of services/playbooks/means/means.py."""

    def __init__(self, api: KubernetesApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._makes: dict[str, Callable[[Change], Awaitable[Done]]] = {
            RESTART: self._restart,
            ROLLBACK: self._rollback,
            SCALE: self._scale,
            CONFIGURE: self._configure,
            SHIFT: self._shift,
            ISOLATE: self._isolate,
        }

    def why_not(self, change: Change) -> str:
        given, what = change.given, change.what
        if what == ROLLBACK and given.kind != "deployment":
            return f"a {given.kind} can't be rolled back here: only a deployment keeps its revisions as ReplicaSets"
        if what == SCALE and given.kind == "daemonset":
            return "a daemonset has no replicas to scale"
        if what == CONFIGURE and not given.config_map:
            return f"no config_map is set for service {change.service!r} in [playbooks.services]"
        if what == SHIFT and not given.http_route:
            return f"no http_route is set for service {change.service!r} in [playbooks.services]"
        return ""

    def target(self, change: Change) -> str:
        return self._api.target

    async def make(self, change: Change) -> Done:
        for _ in range(WRITES_MAX - 1):
            try:
                return await self._makes[change.what](change)
            except Stale:
                continue
        return await self._makes[change.what](change)

    async def settled(self, change: Change) -> str:
        if change.what in (CONFIGURE, SHIFT, ISOLATE):
            return ""
        return _not_rolled_out(await self._workload(change), change.given.kind)

    def knows_when_settled(self, change: Change) -> bool:
        return True

    async def snapshot(self, service: str, given: ServiceGiven, timeout_s: float) -> dict[str, Any]:
        found = await self._api.get(apps(given.namespace, given.kind, given.name), timeout_s)
        spec, status = found.get("spec") or {}, found.get("status") or {}
        template = (spec.get("template") or {}).get("spec") or {}
        snapshot: dict[str, Any] = {
            "kind": given.kind,
            "namespace": given.namespace,
            "name": given.name,
            "revision": _annotations(found).get(REVISION, ""),
            "generation": (found.get("metadata") or {}).get("generation"),
            "replicas": spec.get("replicas"),
            "ready": status.get("readyReplicas", status.get("numberReady", 0)),
            "containers": [_container(each) for each in template.get("containers") or []],
        }
        if given.config_map:
            map_ = await self._api.get(
                named("api/v1", given.namespace, "configmaps", given.config_map), timeout_s
            )
            snapshot["config_map"] = {
                name: _MASK if _SECRET_NAME.search(name) else value
                for name, value in (map_.get("data") or {}).items()
            }
        return snapshot

    async def close(self) -> None:
        await self._api.close()

    # -- the changes -----------------------------------------------------------------------------------------

    async def _restart(self, change: Change) -> Done:
        found = await self._workload(change)
        if _was_done(found, change.key):
            return succeeded("it was restarted before, with this key")
        await self._api.patch(
            self._path(change),
            {
                "metadata": _noted(found, change.key),
                "spec": {
                    "template": {"metadata": {"annotations": {RESTARTED_AT: timestamp(self._clock.now())}}}
                },
            },
            change.timeout_s,
        )
        return succeeded(f"{_name(change)} is being restarted, one pod after the other")

    async def _rollback(self, change: Change) -> Done:
        found = await self._workload(change)
        if _was_done(found, change.identity):
            return succeeded("it was rolled back before, with this key")
        if (found.get("spec") or {}).get("paused"):
            raise Conflict(f"{_name(change)} is paused: resume it first")
        now, to, template = await self._revision(change, found)
        meta = _noted(found, change.identity)
        await self._api.patch(
            self._path(change),
            [
                # Not what it is now: refused with 409 if it was changed since it was read.
                {"op": "replace", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]},
                {"op": "replace", "path": "/spec/template", "value": template},
                {
                    "op": "add",
                    "path": "/metadata/annotations",
                    "value": {**_annotations(found), **meta["annotations"]},
                },
            ],
            change.timeout_s,
            JSON_PATCH,
        )
        return succeeded(
            f"{_name(change)} goes back from revision {now} to {to}",
            {"from_revision": now, "to_revision": to},
        )

    async def _revision(self, change: Change, found: dict[str, Any]) -> tuple[int, int, dict[str, Any]]:
        """The revision that runs, the one to go back to, and its pod template."""
        selector = _selector((found.get("spec") or {}).get("selector") or {})
        sets = await self._api.get(
            apps(change.given.namespace, "replicaset"), change.timeout_s, labelSelector=selector
        )
        uid = (found.get("metadata") or {}).get("uid")
        revisions: dict[int, dict[str, Any]] = {}
        for each in sets.get("items") or []:
            owners = (each.get("metadata") or {}).get("ownerReferences") or []
            number = _annotations(each).get(REVISION, "")
            if number.isdigit() and any(
                owner.get("uid") == uid and owner.get("controller") for owner in owners
            ):
                revisions[int(number)] = (each.get("spec") or {}).get("template") or {}
        now = int(_annotations(found).get(REVISION) or max(revisions, default=0))
        wanted = int(change.params.get("to_revision") or 0)
        to = wanted or max((each for each in revisions if each < now), default=0)
        if to not in revisions or to == now:
            there = ", ".join(map(str, sorted(each for each in revisions if each != now))) or "none"
            what = f"revision {wanted}" if wanted else "earlier revision"
            raise Conflict(f"{_name(change)} has no {what} to go back to (there are: {there})")
        template = {**revisions[to], "metadata": dict(revisions[to].get("metadata") or {})}
        labels = template["metadata"].get("labels") or {}
        template["metadata"]["labels"] = {name: value for name, value in labels.items() if name != HASH}
        return now, to, template

    async def _scale(self, change: Change) -> Done:
        path = apps(change.given.namespace, change.given.kind, change.given.name, "scale")
        now = int(((await self._api.get(path, change.timeout_s)).get("spec") or {}).get("replicas") or 0)
        before, to = await self._scaling(change, now)
        if to != now:
            await self._api.patch(path, {"spec": {"replicas": to}}, change.timeout_s)
        outputs = {"replicas_before": before, "replicas": to}
        return succeeded(f"{_name(change)} from {before} to {to} replicas", outputs)

    async def _scaling(self, change: Change, now: int) -> tuple[int, int]:
        """How many there were and are to be: decided once for all tries, and noted at the object before it is scaled."""
        found = await self._workload(change)
        noted = _annotations(found).get(SCALED_TO, "").partition(">")
        if _was_done(found, change.action_key) and noted[0].isdigit() and noted[2].isdigit():
            return int(noted[0]), int(noted[2])
        by = change.params.get("by")
        to = max(change.given.min_replicas, min(
            int(change.params["replicas"]) if by is None else now + int(by), change.given.max_replicas
        ))  # fmt: skip
        meta = _noted(found, change.action_key)
        meta["annotations"][SCALED_TO] = f"{now}>{to}"
        await self._api.patch(self._path(change), {"metadata": meta}, change.timeout_s)
        return now, to

    async def _configure(self, change: Change) -> Done:
        path = named("api/v1", change.given.namespace, "configmaps", change.given.config_map)
        found = await self._api.get(path, change.timeout_s)
        has = found.get("data") or {}
        wanted = {
            name: value if isinstance(value, str) or value is None else _text(value)
            for name, value in change.params["data"].items()
        }
        before, meta = _before(found, change, {name: has.get(name) for name in wanted})
        await self._api.patch(path, {"metadata": meta, "data": wanted}, change.timeout_s)
        shown = {name: _MASK if _SECRET_NAME.search(name) else value for name, value in before.items()}
        return succeeded(f"{change.given.config_map}: {', '.join(wanted)} changed", {"before": shown})

    async def _shift(self, change: Change) -> Done:
        path = named(ROUTES, change.given.namespace, "httproutes", change.given.http_route)
        found = await self._api.get(path, change.timeout_s)
        weights: dict[str, int] = change.params["weights"]
        rules = (found.get("spec") or {}).get("rules") or []
        before: dict[str, int] = {}
        for rule in rules:
            for backend in rule.get("backendRefs") or []:
                name = str(backend.get("name"))
                if name in weights:
                    before[name] = int(backend.get("weight", 1))
                    backend["weight"] = weights[name]
        if missing := sorted(weights.keys() - before.keys()):
            raise Malformed(f"weights: {change.given.http_route} has no backend {', '.join(missing)}")
        before, meta = _before(found, change, before)
        await self._api.patch(path, {"metadata": meta, "spec": {"rules": rules}}, change.timeout_s)
        said = ", ".join(f"{name} {before[name]} to {weight}" for name, weight in weights.items())
        return succeeded(f"{change.given.http_route}: {said}", {"before": before})

    async def _isolate(self, change: Change) -> Done:
        name = f"llm-im-isolate-{change.given.name}"[:253]
        policies = named(NETWORK, change.given.namespace, "networkpolicies")
        if change.params.get("release"):
            try:
                await self._api.delete(f"{policies}/{name}", change.timeout_s)
            except NotFound:
                return succeeded(f"{_name(change)} was not isolated")
            return succeeded(f"{_name(change)} is back on the network")
        found = await self._workload(change)
        policy = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {
                "name": name,
                "annotations": {DONE: change.key, "llm-incident-manager.io/incident": change.incident_id},
            },
            # Both directions, and nothing that is let through.
            "spec": {
                "podSelector": (found.get("spec") or {}).get("selector") or {},
                "policyTypes": ["Ingress", "Egress"],
            },
        }
        if not policy["spec"]["podSelector"]:  # type: ignore[index]
            # An empty one would cut off the whole namespace.
            raise Malformed(f"{_name(change)} says by no selector which pods are its own")
        try:
            await self._api.create(policies, policy, change.timeout_s)
        except Conflict:
            return succeeded(f"{_name(change)} is isolated already")
        return succeeded(f"{_name(change)} is cut off from the network", {"network_policy": name})

    def _path(self, change: Change) -> str:
        return apps(change.given.namespace, change.given.kind, change.given.name)

    async def _workload(self, change: Change) -> dict[str, Any]:
        return await self._api.get(self._path(change), change.timeout_s)


def _not_rolled_out(found: dict[str, Any], kind: str) -> str:
    """Why a rollout is not over, as `kubectl rollout status` judges it; "" when it is. Raises Conflict when it has failed."""
    spec, status = found.get("spec") or {}, found.get("status") or {}
    generation = int((found.get("metadata") or {}).get("generation") or 0)
    if int(status.get("observedGeneration") or 0) < generation:
        return "the change is not seen yet"
    if kind == "daemonset":
        wanted = int(status.get("desiredNumberScheduled") or 0)
        updated, ready = (
            int(status.get("updatedNumberScheduled") or 0),
            int(status.get("numberAvailable") or 0),
        )
    else:
        for condition in status.get("conditions") or []:
            if (
                condition.get("type") == "Progressing"
                and condition.get("reason") == "ProgressDeadlineExceeded"
            ):
                raise Conflict("the rollout did not progress within its deadline")
        wanted = int(spec.get("replicas", 1))
        updated = int(status.get("updatedReplicas") or 0)
        ready = int(status.get("availableReplicas", status.get("readyReplicas", 0)) or 0)
        if updated >= wanted and int(status.get("replicas") or 0) > updated:
            return f"{int(status['replicas']) - updated} old pods are still there"
    if updated < wanted:
        return f"{updated} of {wanted} pods are updated"
    if ready < wanted:
        return f"{ready} of {wanted} pods are available"
    return ""


def _annotations(found: dict[str, Any]) -> dict[str, str]:
    return (found.get("metadata") or {}).get("annotations") or {}


def _keys(found: dict[str, Any]) -> list[str]:
    return [key for key in _annotations(found).get(DONE, "").split(",") if key]


def _was_done(found: dict[str, Any], key: str) -> bool:
    return key in _keys(found)


def _noted(found: dict[str, Any], key: str) -> dict[str, Any]:
    """The metadata of a write: the key among the last ones, and the version that it was decided by."""
    keys = [each for each in _keys(found) if each != key]
    return {
        "resourceVersion": (found.get("metadata") or {}).get("resourceVersion"),
        "annotations": {DONE: ",".join([*keys, key][-KEYS_KEPT:])},
    }


def _before(
    found: dict[str, Any], change: Change, now: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What there was before the first try of a change, and the metadata of a write that notes it: what undoes the change must not
    find what an earlier try of it made."""
    version = (found.get("metadata") or {}).get("resourceVersion")
    try:
        noted = json.loads(_annotations(found).get(BEFORE, "{}"))
    except ValueError:
        noted = {}
    if noted.get("key") == change.action_key and (noted.get("before") or {}).keys() == now.keys():
        return noted["before"], {"resourceVersion": version}
    note = json.dumps({"key": change.action_key, "before": now})
    if len(note) > NOTE_MAX:
        return now, {"resourceVersion": version}
    return now, {"resourceVersion": version, "annotations": {BEFORE: note}}


def _selector(selector: dict[str, Any]) -> str:
    """As the query parameter labelSelector has it. Raises Malformed for one that selects all."""
    parts = [f"{name}={value}" for name, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or []:
        key, values = each.get("key"), ",".join(each.get("values") or [])
        match each.get("operator"):
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(str(key))
            case "DoesNotExist":
                parts.append(f"!{key}")
    if not parts:
        raise Malformed("it says by no selector which pods are its own")
    return ",".join(parts)


def _container(container: dict[str, Any]) -> dict[str, Any]:
    """What of a container may be shown: a value of its environment that may be a secret is not."""
    return {
        "name": container.get("name"),
        "image": container.get("image"),
        "args": [_MASK if _SECRET_NAME.search(str(each)) else each for each in container.get("args") or []],
        "resources": container.get("resources") or {},
        "env": {
            str(each.get("name")): _MASK
            if _SECRET_NAME.search(str(each.get("name"))) or "@" in str(each.get("value", ""))
            else each.get("value", "(from elsewhere)")
            for each in container.get("env") or []
        },
    }


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _name(change: Change) -> str:
    return f"{change.given.kind} {change.given.namespace}/{change.given.name}"
