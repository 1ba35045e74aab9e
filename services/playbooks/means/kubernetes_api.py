"""The Kubernetes API, as far as services are changed by it: JSON in, JSON out, errors in our words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

import msgspec

from actors.targets import Targets
from models.errors import Conflict, Forbidden, Malformed, NotFound, Stale, Unavailable
from services.actions.outbound import Outbound
from services.playbooks.calls import Calls, host_target

MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
#: A deployment with a hundred replica sets is some megabytes at most.
ANSWER_MAX = 16 * 1024 * 1024


class KubernetesGiven(msgspec.Struct, frozen=True):
    """models.settings.playbook_targets.Kubernetes, as a responder gets it."""

    api: str | None = None
    token: str | None = None
    token_file: str = ""
    ca_file: str = ""
    timeout: float = 10.0


class KubernetesApi:
    def __init__(self, given: KubernetesGiven, targets: Targets | None = None) -> None:
        """Opens nothing yet."""
        self._given = given
        ca_file = given.ca_file if given.ca_file and os.path.isfile(given.ca_file) else ""
        self._outbound = Calls(Outbound(ca_file=ca_file, timeout_s=given.timeout), targets)

    @property
    def target(self) -> str:
        """The name of the target that it is, "" while it is not known where it is."""
        try:
            return host_target(self._base())
        except Malformed:
            return ""

    async def get(self, path: str, timeout_s: float, **params: str) -> dict[str, Any]:
        return await self._call("GET", path + ("?" + urlencode(params) if params else ""), timeout_s)

    async def patch(
        self, path: str, body: object, timeout_s: float, media_type: str = MERGE
    ) -> dict[str, Any]:
        return await self._call("PATCH", path, timeout_s, body, media_type)

    async def create(self, path: str, body: object, timeout_s: float) -> dict[str, Any]:
        return await self._call("POST", path, timeout_s, body, "application/json")

    async def delete(self, path: str, timeout_s: float) -> dict[str, Any]:
        return await self._call("DELETE", path, timeout_s)

    async def close(self) -> None:
        await self._outbound.close()

    async def _call(
        self,
        method: Literal["GET", "POST", "PATCH", "DELETE"],
        path: str,
        timeout_s: float,
        body: object = None,
        media_type: str = "",
    ) -> dict[str, Any]:
        """Raises Stale when the object was changed meanwhile (409), Conflict when it exists already, NotFound, Forbidden, Malformed
        for what is refused for good; Unavailable."""
        headers = {"Accept": "application/json", "Authorization": f"Bearer {self._token()}"}
        if media_type:
            headers["Content-Type"] = media_type
        answer = await self._outbound.call(
            method,
            self._base() + path,
            headers=headers,
            body=None if body is None else msgspec.json.encode(body),
            timeout_s=min(self._given.timeout, timeout_s),
            max_bytes=ANSWER_MAX,
            trusted=True,
        )
        try:
            decoded = msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            decoded = None
        said = decoded if isinstance(decoded, dict) else {}
        if 200 <= answer.status < 300:
            if not said or answer.cut:
                raise Unavailable(f"Kubernetes answered {answer.status} without an object")
            return said
        why = f"Kubernetes answered {answer.status}: {str(said.get('message') or '')[:300]}".rstrip(": ")
        match answer.status:
            case 404:
                raise NotFound(why)
            case 403:
                raise Forbidden(why)
            case 409:
                raise (Conflict if said.get("reason") == "AlreadyExists" else Stale)(why)
            case 400 | 405 | 415 | 422:
                raise Malformed(why)
            case _:
                raise Unavailable(why)

    def _base(self) -> str:
        if self._given.api:
            return self._given.api.rstrip("/")
        host, port = (
            os.environ.get("KUBERNETES_SERVICE_HOST"),
            os.environ.get("KUBERNETES_SERVICE_PORT", "443"),
        )
        if not host:
            raise Malformed(
                "no Kubernetes API is known: set playbooks.kubernetes.api, or run as a pod of the cluster"
            )
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    def _token(self) -> str:
        if self._given.token:
            return self._given.token
        try:
            # Read each time: Kubernetes renews it, and it is one small file.
            return Path(self._given.token_file).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise Malformed(
                "no token for the Kubernetes API: set playbooks.kubernetes.token or token_file"
            ) from None


def apps(namespace: str, kind: str, name: str = "", sub: str = "") -> str:
    """A path of the group apps/v1: `kind` is "deployment", "replicaset" ..."""
    path = f"/apis/apps/v1/namespaces/{quote(namespace, safe='')}/{kind}s"
    return path + (f"/{quote(name, safe='')}" if name else "") + (f"/{sub}" if sub else "")


def named(group: str, namespace: str, kinds: str, name: str = "") -> str:
    """A path of another group: "api/v1" and "configmaps", "apis/networking.k8s.io/v1" and "networkpolicies"."""
    path = f"/{group}/namespaces/{quote(namespace, safe='')}/{kinds}"
    return path + (f"/{quote(name, safe='')}" if name else "")
