"""A collector with all that the settings name, as its actor runs it: who is away is told by name, and holds up nobody else."""

from __future__ import annotations

import json

import pytest

from actors.runtime.host import Actor, Host
from models.metrics import Meter
from models.metrics import decode as decode_metrics
from models.partition.sharding import TENANT
from models.settings.all import Settings
from models.settings.processes import COLLECTOR
from models.settings.secrets import revealed
from services.ingest.sources.table import open_sources
from services.wiring import bootstrap
from services.wiring.collector import Collector
from services.wiring.station import Station
from tests.api.gateway_in_process import System, system
from tests.api.test_pull_alertmanager import Scripted
from tests.peers.collecting import fires, until
from tests.ports import free_port
from tests.receivers.api import serving

pytestmark = pytest.mark.asyncio


def collector(ours: System, settings: Settings) -> Collector:
    given = revealed(settings.given_to(COLLECTOR))
    assert isinstance(given, dict)

    def made(host: Host) -> Actor:
        station = Station(
            settings,
            ours.cluster,
            ours.clock,
            Meter(host.name),
            bootstrap.open_tracer(settings, host.name),
            ours.stores.log("control"),
            ours.stores.dead_letters(settings, ours.clock),
            ours.shards,
            bootstrap.CONTROL_ACTOR,
            start="",
            tenant=TENANT,
        )
        return Collector(host.name, station, open_sources, given)

    found = made(Host("collector-0", ours.cluster, pytest.fail))
    assert isinstance(found, Collector)
    return found


async def test_one_server_that_is_away_is_told_and_the_others_are_polled() -> None:
    peer = Scripted()
    peer.has("Down")
    async with system() as ours, serving(peer.handle) as place:
        away = f"127.0.0.1:{free_port()}"
        row = {"interval": 0.05, "timeout": 1}
        settings = Settings.model_validate(
            {
                "state": {"partitions": 2},
                "pull": {
                    "alertmanager": [
                        {"name": "here", "url": f"http://{place}", "token": "s3cret", **row},
                        {"name": "gone", "url": f"http://{away}", **row},
                    ]
                },
                "integrations": {"llm_sentinel": {"enabled": True, "endpoint": away}},
            }
        )
        actor = collector(ours, settings)
        await actor.start()
        try:
            await fires(ours, {"Down"})
            assert peer.authorization == "Bearer s3cret"
            await until(lambda: "gone" in actor.sources["alertmanager"].why_away)
            said = json.loads(await actor.status(b""))
            assert f"alertmanager/gone: http://{away}" in said["alertmanager"]
            assert "alertmanager/here" not in said["alertmanager"]
            up = {
                each.labels["source"]: each.value
                for each in decode_metrics(await actor.metrics(b"")).gauges
                if each.name == "llm_im_source_up"
            }
            assert (up["alertmanager/here"], up["alertmanager/gone"]) == (1, 0)
        finally:
            await actor.stop()
