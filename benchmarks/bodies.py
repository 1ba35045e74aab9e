"""Alert batches as Prometheus would send them, encoded before any clock starts. Used by benchmarks.load and
the harness.

Every body is a JSON array for `POST /api/v2/alerts`, about 520 bytes an alert (new series 545).
The key order is meant to be Prometheus's (not captured). The same seed gives the same series at any batch
size, so a set may be loaded at 256 a request and then repeated at 1. Each pass carries a later
endsAt, as Prometheus's repeats do, so that comparing with the last body alone wins nothing. Passes cycle.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

#: 50 services of 20 alert names make 1,000 (alertname, service) groups: a mid-sized installation.
SERVICES = 50
ALERT_NAMES = 20
#: Prometheus sends at most 64 alerts a request up to 2.x, 256 later.
BATCH = 64
#: Far beyond any run, so that nothing expires while it is measured.
ENDS_AFTER_S = 6 * 3600
#: Different endsAt values a repeated series goes through; more only costs the generator memory.
PASSES = 2
#: Annotations that a changing series goes through in one turn. None comes twice while a turn of 3 s sends below 50,000
#: alerts a second; a server that is faster meets some again.
CHANGING_PASSES = 8

_NAMES = (
    ("ModelLatencyHigh", "P99 latency above 2.5 s for 10 minutes", "histogram_quantile"),
    ("TokenRateDropped", "Token rate fell below half of last week", "rate"),
    ("GpuMemoryNearFull", "GPU memory above 95 % for 15 minutes", "max_over_time"),
    ("QueueDepthGrowing", "Request queue is growing for 5 minutes", "deriv"),
    ("ErrorBudgetBurn", "Error budget burns 14 times too fast", "sum_over_time"),
    ("SafetyFilterErrors", "Safety filter answers with errors", "increase"),
    ("EmbeddingStale", "Embedding index older than 24 hours", "timestamp"),
    ("ReplicaCrashLooping", "Replica restarted 5 times in an hour", "changes"),
    ("ContextTruncated", "More than 5 % of prompts are truncated", "avg_over_time"),
    ("ProviderThrottled", "Upstream provider answers 429", "irate"),
)
_SERVICE_KINDS = (
    "chat-gateway",
    "embedder",
    "reranker",
    "prompt-cache",
    "tool-runner",
    "eval-worker",
    "moderation",
)
_DESCRIPTION = b'"description":"'
_SEVERITIES = ("critical", "warning", "warning", "info")


class Batch(NamedTuple):
    """One request body and how many alerts it holds; `headers` are lines that go with this body alone."""

    body: bytes
    alerts: int
    headers: str = ""


@dataclass(frozen=True, slots=True)
class Bodies:
    """What to build, as plain data: it travels to the generator's process as JSON."""

    kind: Literal["repeats", "changing", "new_series"] = "repeats"
    series: int = 20_000
    batch: int = BATCH
    groups: int = 0  # new_series only
    run_id: str = ""  # other names (new_series) or other annotations (changing) for every run
    now: float = 0.0  # seconds since the epoch that all times are near; 0: the clock
    services: int = SERVICES  # repeats only
    alert_names: int = ALERT_NAMES
    skew: float = 0.0  # repeats only: share of the series on one service
    passes: int = PASSES  # repeats only
    seed: int = 1
    format: str = ""  # repeats and changing only: events of another sender's format; "" Alertmanager's own

    def build(self) -> list[Batch]:
        """The batches, in the order in which to send them."""
        now = self.now or time.time()
        if self.format:
            return list(_of_format(self))
        if self.kind == "new_series":
            return new_series(
                self.series,
                self.groups,
                self.batch,
                self.run_id,
                alert_names=self.alert_names,
                seed=self.seed,
                now=now,
            )
        return repeats(
            self.series,
            self.batch,
            services=self.services,
            alert_names=self.alert_names,
            skew=self.skew,
            passes=self.passes,
            seed=self.seed,
            now=now,
            values=self.run_id if self.kind == "changing" else "",
        )


def repeats(
    series: int = 20_000,
    batch: int = BATCH,
    *,
    services: int = SERVICES,
    alert_names: int = ALERT_NAMES,
    skew: float = 0.0,
    passes: int = PASSES,
    seed: int = 1,
    now: float | None = None,
    values: str = "",
) -> list[Batch]:
    """`passes` rounds over the same series, shuffled once; send the list again and again for a steady load.

    skew: share of the series that belong to the first service; the rest are spread evenly over the others.
    values: each alert of each round has another value in its description, drawn by this; as rules have it that write
    `{{ $value }}` there.
    """
    rng = random.Random(seed)
    now = time.time() if now is None else now
    names = [_service(number) for number in range(services)]
    alerts = []
    for number in range(series):
        service = names[0] if skew and rng.random() < skew else rng.choice(names[1:] if skew else names)
        alerts.append(_alert(rng, number, _alert_name(rng.randrange(alert_names)), service, now))
    rng.shuffle(alerts)

    first = list(_batches(alerts, batch))
    ends_at = _rfc3339(now + ENDS_AFTER_S).encode()
    later = [_rfc3339(now + ENDS_AFTER_S + 60 * number).encode() for number in range(1, passes)]
    rounds = [
        first,
        *([Batch(each.body.replace(ends_at, other), each.alerts) for each in first] for other in later),
    ]
    if values:
        drawn = random.Random(values)
        rounds = [[_with_values(batch, drawn) for batch in each] for each in rounds]
    return [batch for each in rounds for batch in each]


def _with_values(batch: Batch, drawn: random.Random) -> Batch:
    """The same alerts, each with a value of its own in its description."""
    before, *parts = batch.body.split(_DESCRIPTION)
    described = [b"%bvalue %.6f, %b" % (_DESCRIPTION, drawn.random(), part) for part in parts]
    return Batch(b"".join((before, *described)), batch.alerts)


def _of_format(asked: Bodies) -> Iterator[Batch]:
    """Events of another sender's format, the same in each pass, or with something new in each."""
    # Here: it reads samples with every format there is, which other benchmarks need not wait for.
    from benchmarks.senders import events_of

    events = events_of(asked.format)
    changes = asked.kind == "changing"
    run = int(asked.run_id or "0", 16)
    for pass_ in range(asked.passes if changes else 1):
        begun = pass_ * asked.series
        for first in range(0, asked.series, asked.batch):
            numbers = range(first, min(first + asked.batch, asked.series))
            body = events.body(
                numbers,
                lambda number, begun=begun: f"{run:010d}{begun + number:08d}" if changes else "0" * 18,  # type: ignore[misc]
            )
            yield Batch(body, len(numbers), events.signature(body))


def new_series(
    count: int,
    groups: int,
    batch: int = BATCH,
    run_id: str = "",
    *,
    alert_names: int = ALERT_NAMES,
    seed: int = 1,
    now: float | None = None,
) -> list[Batch]:
    """`count` series nobody has seen, over `groups` new (alertname, service) pairs; send the list once.

    Another run_id gives other names of the same length (keep run_ids of equal length), so that turns compare.
    """
    rng = random.Random(seed)
    now = time.time() if now is None else now
    names = min(alert_names, groups)
    alerts = []
    for number in range(count):
        group = number % groups
        service = f"{_service(group // names)}-{run_id}"
        alerts.append(_alert(rng, number, _alert_name(group % names), service, now))
    rng.shuffle(alerts)
    return list(_batches(alerts, batch))


class _Name(NamedTuple):
    name: str
    summary: str
    function: str


def _alert_name(number: int) -> _Name:
    name, summary, function = _NAMES[number % len(_NAMES)]
    return _Name(name if number < len(_NAMES) else f"{name}{number // len(_NAMES)}", summary, function)


def _service(number: int) -> str:
    return f"{_SERVICE_KINDS[number % len(_SERVICE_KINDS)]}-{number:03d}"


def _alert(rng: random.Random, number: int, name: _Name, service: str, now: float) -> str:
    """One alert. The pod carries the series number, which makes the label set unique within a run."""
    host = rng.getrandbits(24)
    instance = f"10.{host >> 16}.{host >> 8 & 255}.{host & 255}:8080"
    pod = f"{service}-{rng.getrandbits(32):08x}-{number:06d}"
    # Go's encoder writes & as \u0026: a real sender's body has escapes in it, so ours has one too.
    return (
        f'{{"annotations":{{"description":"{service} on {instance}",'
        f'"runbook_url":"https://rb.example.com/{name.name}","summary":"{name.summary}"}},'
        f'"endsAt":"{_rfc3339(now + ENDS_AFTER_S)}","startsAt":"{_rfc3339(now - rng.randrange(3600))}",'
        f'"generatorURL":"http://prom:9090/graph?g0.expr={name.function}\\u0026g0.tab=1",'
        f'"labels":{{"alertname":"{name.name}","instance":"{instance}","job":"llm","namespace":"serving",'
        f'"pod":"{pod}","service":"{service}","severity":"{_SEVERITIES[host & 3]}"}}}}'
    )


def _batches(alerts: list[str], size: int) -> Iterator[Batch]:
    for start in range(0, len(alerts), size):
        part = alerts[start : start + size]
        yield Batch(f"[{','.join(part)}]".encode(), len(part))


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))
