"""A real Alertmanager with its webhook, its PagerDuty and its Opsgenie receiver pointed here: what it notifies fires, what it resolves is over."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api.conftest import ALERTMANAGER
from tests.api.gateway_in_process import System, system
from tests.ports import free_port

CONFIG = """
global:
  pagerduty_url: http://127.0.0.1:{port}/v2/enqueue
  opsgenie_api_url: http://127.0.0.1:{port}/
route: {{receiver: all, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}
receivers:
  - name: all
    webhook_configs: [{{url: "http://127.0.0.1:{port}/v1/events/alertmanager-webhook"}}]
    pagerduty_configs: [{{routing_key: 0123456789abcdef0123456789abcdef}}]
    opsgenie_configs: [{{api_key: key, priority: P2}}]
"""
#: Of each notification one alert: by its label, which names the receiver.
SENT = {"instance": "webhook", "dedup_key": "pagerduty", "alert_id": "opsgenie"}


@contextmanager
def alertmanager(folder: Path, port: int) -> Iterator[str]:
    """A real one that notifies this port. Its URL."""
    if shutil.which(ALERTMANAGER) is None:
        pytest.skip(f"{ALERTMANAGER} is not installed: apt-get install {ALERTMANAGER}")
    config = folder / "alertmanager.yml"
    config.write_text(CONFIG.format(port=port))
    own = free_port()
    options = [
        f"--config.file={config}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{own}",
        "--cluster.listen-address=",
    ]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([ALERTMANAGER, *options], stderr=log) as process,
    ):
        try:
            yield f"http://127.0.0.1:{own}"
        finally:
            process.terminate()


def post(url: str, ends_at: float) -> None:
    """An alert to Alertmanager, once it listens."""
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends_at))
    labels = {"alertname": "ModelDown", "service": "llm-api", "instance": "a", "severity": "critical"}
    body = [
        {
            "labels": labels,
            "annotations": {"summary": "no answer"},
            "endsAt": ends,
            "startsAt": "2026-01-31T12:00:00Z",
        }
    ]
    for _ in range(100):
        try:
            headers = {"Content-Type": "application/json"}
            urllib.request.urlopen(
                urllib.request.Request(f"{url}/api/v2/alerts", json.dumps(body).encode(), headers), timeout=5
            )
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("Alertmanager does not listen")


async def firing(ours: System, wanted: set[str]) -> set[str]:
    """Which receivers' alerts fire, once they are those wanted, or after 20 s."""
    found: set[str] = set()
    for _ in range(400):
        labels = [each["labels"] for each in await ours.alerts()]
        found = {SENT[name] for each in labels for name in SENT if name in each}
        if found == wanted:
            break
        await asyncio.sleep(0.05)
    return found


@pytest.mark.asyncio
async def test_what_alertmanager_notifies_fires_and_what_it_resolves_is_over(tmp_path: Path) -> None:
    everybody = set(SENT.values())
    async with system() as ours:
        with alertmanager(tmp_path, await ours.listen()) as url:
            await asyncio.to_thread(post, url, time.time() + 3600)
            assert await firing(ours, everybody) == everybody, (tmp_path / "log").read_text()

            services = {each["labels"]["service"] for each in await ours.alerts()}
            assert services == {"llm-api"}

            await asyncio.to_thread(post, url, time.time() - 1)
            assert await firing(ours, set()) == set(), (tmp_path / "log").read_text()
        assert not await ours.dead_letters.page(0, 10)
