"""The gateway that serves a stream of gRPC is killed in its middle: what was not acknowledged is sent again, and is there once."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from services.proto import incident_pb2 as pb
from services.proto import incident_pb2_grpc as rpc
from tests.cluster import audit
from tests.cluster.instance import Cluster, until
from tests.cluster.senders import V1, Told

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

BATCHES, ALERTS = 400, 10
KILL_AFTER = 100
#: Acknowledgements that the stream waits for before it goes on, so that a kill meets some of each kind.
AHEAD = 12


def test_a_batch_is_stored_once_though_its_gateway_is_killed(cluster: Cluster) -> None:
    seed = random.SystemRandom().randrange(1, 10**6)
    waiting = {f"{seed}/{number}": _batch(seed, number) for number in range(BATCHES)}
    acknowledged: list[str] = []
    killed: list[int] = []
    breaks = 0
    while waiting:
        with grpc.insecure_channel(f"{cluster.called_at}:{cluster.grpc_port}") as channel:
            until("a gateway", lambda: _is_ready(channel), 60.0)
            stub: Any = cast(Any, rpc.SentinelAlertsStub)(channel)
            places = threading.Semaphore(AHEAD)
            try:
                for answer in stub.StreamBatches(_sent([*waiting.values()], places), timeout=60):
                    statuses = {each.status for each in answer.acks}
                    places.release()
                    if statuses <= {pb.ACK_STATUS_ACCEPTED, pb.ACK_STATUS_DUPLICATE}:
                        acknowledged.append(answer.batch_id)
                        del waiting[answer.batch_id]
                    else:
                        assert pb.ACK_STATUS_RETRY in statuses, answer
                    if len(acknowledged) >= KILL_AFTER and not killed:
                        killed = _holders(cluster)
                        assert killed, "nobody holds the connection"
                        for pid in killed:
                            cluster.kill(pid)
            except grpc.RpcError as error:
                assert cast(grpc.Call, error).code() is grpc.StatusCode.UNAVAILABLE, error
                breaks += 1

    assert breaks, "the stream was not cut"
    assert len(acknowledged) == BATCHES
    told = Told()
    told.acknowledged[V1] = dict.fromkeys(range(BATCHES * ALERTS), 1)
    cluster.settled()
    audit.check(audit.through_the_api(cluster, seed), told, counted=True)
    audit.check(audit.offline(cluster.data, cluster.partitions, seed), told, counted=True)


def _batch(seed: int, number: int) -> pb.AlertBatch:
    alerts = [
        pb.AlertMessage(
            alert_id=f"{series}",
            severity=pb.SEVERITY_P2,
            description=f"series {series}",
            labels={"series": str(series), "door": "v1", "seed": str(seed)},
            affected_services=[f"grpc-{series % 20}"],
        )
        for series in range(number * ALERTS, (number + 1) * ALERTS)
    ]
    return pb.AlertBatch(batch_id=f"{seed}/{number}", alerts=alerts)


def _sent(batches: list[pb.AlertBatch], places: threading.Semaphore) -> Iterator[pb.AlertBatch]:
    for batch in batches:
        if not places.acquire(timeout=30):
            return
        yield batch


def _is_ready(channel: grpc.Channel) -> bool:
    try:
        grpc.channel_ready_future(channel).result(5)
    except grpc.FutureTimeoutError:
        return False
    return True


def _holders(cluster: Cluster) -> list[int]:
    """Gateways that have a connection of a client of gRPC."""
    wanted = {
        f"socket:[{fields[9]}]"
        for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        if fields[3] == "01" and fields[1].endswith(f":{cluster.grpc_port:04X}")
    }
    return [
        pid
        for pid in cluster.gateway_pids()
        if any(os.readlink(each) in wanted for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink())
    ]
