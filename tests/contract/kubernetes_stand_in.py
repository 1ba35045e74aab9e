"""A Kubernetes API server as far as llm-im calls it, after the API reference: apps/v1 (deployments with `scale`, replicasets),
configmaps, NetworkPolicies, HTTPRoutes. It is strict: a wrong path, media type or token is refused as the real one refuses it, and a
write with an old resourceVersion is a conflict. Its controller rolls out after a number of looks.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from aiohttp import web

TOKEN = "kubernetes-t0ken"
REVISION = "deployment.kubernetes.io/revision"
_PATCHES = {"application/merge-patch+json", "application/json-patch+json"}


class Kubernetes:
    def __init__(self, *, looks: int = 0) -> None:
        """A rollout is over after so many looks at the deployment; below 0 never, and its deadline passes."""
        self.looks = looks
        self.version = 100
        self.objects: dict[str, dict[str, Any]] = {}
        self.conflicts = 0
        self.restarts = 0

    def deployment(self, name: str = "llm-api", image: str = "llm:2", replicas: int = 3) -> None:
        """With an earlier revision of image `llm:1`."""
        labels = {"app": name}
        self._put(f"/apis/apps/v1/namespaces/prod/deployments/{name}", {
            "metadata": {"name": name, "uid": f"uid-{name}", "generation": 2, "annotations": {REVISION: "2"}},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": self._template(labels, image)},
            "status": {"observedGeneration": 2, "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas,
                       "readyReplicas": replicas, "conditions": []},
        })  # fmt: skip
        for number, each in ((1, "llm:1"), (2, image)):
            self._replica_set(
                name, number, self._template({**labels, "pod-template-hash": f"hash{number}"}, each)
            )

    def put(self, path: str, value: dict[str, Any]) -> None:
        self._put(path, value)

    def at(self, path: str) -> dict[str, Any]:
        return self.objects[path]

    @property
    def workload(self) -> dict[str, Any]:
        return self.at("/apis/apps/v1/namespaces/prod/deployments/llm-api")

    async def serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _status(401, "Unauthorized", "Unauthorized")
        path = request.path
        if path.endswith("/scale"):
            return await self._scale(request, path.removesuffix("/scale"))
        match request.method:
            case "GET" if path == "/apis/apps/v1/namespaces/prod/replicasets":
                return self._list(request)
            case "GET":
                found = self.objects.get(path)
                if found is None:
                    return _status(404, "NotFound", f'"{path.rpartition("/")[2]}" not found')
                self._look(found)
                return web.json_response(found)
            case "POST":
                made = await request.json()
                place = f"{path}/{made['metadata']['name']}"
                if place in self.objects:
                    return _status(409, "AlreadyExists", "already exists")
                self._put(place, made)
                return web.json_response(made, status=201)
            case "DELETE":
                if self.objects.pop(path, None) is None:
                    return _status(404, "NotFound", "not found")
                return web.json_response({"kind": "Status", "status": "Success"})
            case "PATCH":
                return await self._patch(request, path)
            case _:
                return _status(405, "MethodNotAllowed", "the server does not allow this method")

    async def _patch(self, request: web.Request, path: str) -> web.StreamResponse:
        if request.content_type not in _PATCHES:
            return _status(
                415, "UnsupportedMediaType", f"the body was in an unknown format: {request.content_type}"
            )
        found = self.objects.get(path)
        if found is None:
            return _status(404, "NotFound", "not found")
        if self.conflicts:
            # Somebody else writes between the read and the write of whoever asks.
            self.conflicts -= 1
            self._bump(found)
        before, made, body = found["metadata"]["resourceVersion"], copy.deepcopy(found), await request.json()
        if request.content_type == "application/merge-patch+json":
            _merge(made, body)
        else:
            for each in body:
                *parents, last = [
                    part.replace("~1", "/").replace("~0", "~") for part in each["path"].split("/")[1:]
                ]
                at = made
                for part in parents:
                    at = at[part]
                if each["op"] == "replace" and last not in at:
                    return _status(422, "Invalid", f"the path {each['path']} does not exist")
                at[last] = each["value"]
        if made["metadata"]["resourceVersion"] not in (before, None):
            return _status(
                409,
                "Conflict",
                "the object has been modified; please apply your changes to the latest version",
            )
        changed = made.get("spec", {}).get("template") != found.get("spec", {}).get("template")
        found.clear()
        found.update(made)
        self._bump(found)
        if changed and "/deployments/" in path:
            self._roll_out(found)
        return web.json_response(found)

    async def _scale(self, request: web.Request, path: str) -> web.StreamResponse:
        found = self.objects.get(path)
        if found is None:
            return _status(404, "NotFound", "not found")
        if request.method == "PATCH":
            if request.content_type != "application/merge-patch+json":
                return _status(415, "UnsupportedMediaType", "unknown format")
            found["spec"]["replicas"] = (await request.json())["spec"]["replicas"]
            self._bump(found)
        return web.json_response(
            {"kind": "Scale", "apiVersion": "autoscaling/v1", "spec": {"replicas": found["spec"]["replicas"]}}
        )

    def _list(self, request: web.Request) -> web.StreamResponse:
        wanted = dict(part.split("=") for part in request.query["labelSelector"].split(","))
        items = [
            each
            for path, each in self.objects.items()
            if "/replicasets/" in path and wanted.items() <= each["metadata"]["labels"].items()
        ]
        return web.json_response({"kind": "ReplicaSetList", "items": items})

    def _roll_out(self, found: dict[str, Any]) -> None:
        """What the deployment controller does: a template that was there before gets a new number, another a new replica set."""
        self.restarts += 1
        name = found["metadata"]["name"]
        found["metadata"]["generation"] += 1
        number = int(found["metadata"]["annotations"][REVISION]) + 1
        found["metadata"]["annotations"][REVISION] = str(number)
        found["status"] |= {"updatedReplicas": 0, "availableReplicas": found["spec"]["replicas"]}
        for path, each in [*self.objects.items()]:
            if "/replicasets/" in path:
                template = copy.deepcopy(each["spec"]["template"])
                template["metadata"]["labels"].pop("pod-template-hash")
                if template == found["spec"]["template"]:
                    each["metadata"]["annotations"][REVISION] = str(number)
                    return
        labels = {**found["spec"]["template"]["metadata"]["labels"], "pod-template-hash": f"hash{number}"}
        template = copy.deepcopy(found["spec"]["template"])
        template["metadata"]["labels"] = labels
        self._replica_set(name, number, template)

    def _look(self, found: dict[str, Any]) -> None:
        status = found.get("status")
        if status is None or "template" not in found.get("spec", {}):
            return
        if self.looks < 0 and status["updatedReplicas"] < found["spec"]["replicas"]:
            status["observedGeneration"] = found["metadata"]["generation"]
            status["conditions"] = [
                {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
            ]
        elif self.looks > 0:
            self.looks -= 1
        elif self.looks == 0:
            replicas = found["spec"]["replicas"]
            status |= {
                "observedGeneration": found["metadata"]["generation"], "replicas": replicas, "updatedReplicas": replicas,
                "availableReplicas": replicas, "readyReplicas": replicas,
            }  # fmt: skip

    def _replica_set(self, name: str, number: int, template: dict[str, Any]) -> None:
        self._put(f"/apis/apps/v1/namespaces/prod/replicasets/{name}-{number}", {
            "metadata": {
                "name": f"{name}-{number}",
                "labels": template["metadata"]["labels"],
                "annotations": {REVISION: str(number)},
                "ownerReferences": [{"kind": "Deployment", "uid": f"uid-{name}", "controller": True}],
            },
            "spec": {"template": template},
        })  # fmt: skip

    def _template(self, labels: dict[str, str], image: str) -> dict[str, Any]:
        env = [{"name": "MODEL", "value": "large"}, {"name": "API_TOKEN", "value": "s3cret-of-the-pod"},
               {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]  # fmt: skip
        return {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "main", "image": image, "env": env}]},
        }

    def _put(self, path: str, value: dict[str, Any]) -> None:
        self.objects[path] = json.loads(json.dumps(value))
        self.objects[path].setdefault("metadata", {})
        self._bump(self.objects[path])

    def _bump(self, found: dict[str, Any]) -> None:
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)


def _merge(into: dict[str, Any], patch: dict[str, Any]) -> None:
    """RFC 7386."""
    for name, value in patch.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict):
            _merge(into.setdefault(name, {}), value)
        else:
            into[name] = value


def _status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": message,
        },
        status=code,
    )
