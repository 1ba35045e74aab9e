"""The live stream behind HAProxy: gateways are killed under their clients, who go on at another from their cursor."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.cluster.instance import Cluster, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

PATH = "/v1/stream/incidents"
#: A stream that was cut is not always said to be: the next heartbeat is due after 15 s.
SILENCE_S = 20.0
Message = dict[str, object]


class Client(threading.Thread):
    """Follows the stream, and comes back from its cursor whenever it is cut."""

    def __init__(self, read: Callable[[str], Iterator[Message]]) -> None:
        super().__init__()
        self.read = read
        self.cursor = ""
        self.told: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.cuts = 0
        self._over = threading.Event()

    def end(self) -> None:
        self._over.set()

    def run(self) -> None:
        while not self._over.is_set():
            try:
                for message in self.read(self.cursor):
                    self.cursor = str(message["cursor"])
                    if message["event"] == "incident":
                        incident = message["incident"]
                        assert isinstance(incident, dict)
                        self.told[incident["service"]] += 1
                    else:
                        self.others[str(message["event"])] += 1
                    if self._over.is_set():
                        return
            except (OSError, http.client.HTTPException, WebSocketException):
                pass
            self.cuts += 1
            time.sleep(0.1)


def by_sse(cluster: Cluster) -> Callable[[str], Iterator[Message]]:
    def read(cursor: str) -> Iterator[Message]:
        connection = http.client.HTTPConnection(cluster.called_at, cluster.port, timeout=SILENCE_S)
        try:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": cursor} if cursor else {})
            connection.request("GET", f"{PATH}?kind=Created", headers=headers)
            answer = connection.getresponse()
            assert answer.status in (200, 503), (answer.status, answer.read())
            while answer.status == 200 and (line := answer.readline()):
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        finally:
            connection.close()

    return read


def by_websocket(cluster: Cluster) -> Callable[[str], Iterator[Message]]:
    def read(cursor: str) -> Iterator[Message]:
        url = f"ws://{cluster.authority}{PATH}?kind=Created" + (f"&cursor={cursor}" if cursor else "")
        with connect(url, open_timeout=SILENCE_S) as connection:
            while True:
                yield json.loads(connection.recv(SILENCE_S))

    return read


@contextmanager
def sending(cluster: Cluster, prefix: str) -> Iterator[list[str]]:
    """New incidents all the time, one after the other; the services whose incident was acknowledged."""
    sent: list[str] = []
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            service = f"{prefix}-{len(sent)}"
            body = [{"labels": {"alertname": "Streamed", "service": service}}]
            try:
                if cluster.call("POST", "/v1/alerts", body).status == 202:
                    sent.append(service)
            except (OSError, http.client.HTTPException):
                pass  # sent again: the same alert is the same incident
            time.sleep(0.02)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


def test_clients_of_killed_gateways_miss_nothing_and_hear_nothing_twice(cluster: Cluster) -> None:
    clients = [Client(by_sse(cluster)) for _ in range(3)] + [Client(by_websocket(cluster)) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        until("all watch", lambda: all(client.others["ready"] for client in clients), 30.0)
        with sending(cluster, "killed") as sent:
            time.sleep(1.0)
            # Each of them once, so that each client is cut: one that is new may have none yet.
            for pid in cluster.gateway_pids():
                cluster.kill(pid)
                cluster.settled()
                time.sleep(1.0)
        # Of each, not of the last one only: two shards are followed, and no order between them is promised.
        until("all heard of each", lambda: all(client.told.keys() >= set(sent) for client in clients), 30.0)
    finally:
        for client in clients:
            client.end()
        cluster.call("POST", "/v1/alerts", [{"labels": {"alertname": "Streamed", "service": "last"}}])
        for client in clients:
            client.join(SILENCE_S + 10.0)

    print(f"{len(sent)} incidents; cuts {[client.cuts for client in clients]}")
    for client in clients:
        mine = {service: count for service, count in client.told.items() if service.startswith("killed-")}
        assert mine == dict.fromkeys(sent, 1)
        assert not client.others["reset"]
    assert sum(client.cuts for client in clients) >= len(clients)
