"""Metrics of actors: plain numbers in the actor, bytes to the gateway, Prometheus text at /metrics.

Actors hold a Meter and answer metrics() with its reading; services/api/health.py gathers and renders them. Each series
carries its actor's name: counters of several processes that restart at different times must not be summed before
Prometheus has seen them separately.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

import msgspec


@dataclass(frozen=True, slots=True)
class Metric:
    """One name that may be counted: what it is, what it means, and a histogram's upper bounds."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    buckets: tuple[float, ...] = ()


#: Round about the goals: an append alone takes 1-5 ms, the durable answer must come within 100 ms.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SIZES = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0)

#: Every metric there is, for /metrics and the docs. tests/api/test_health.py finds names in the code that are
#: missing here; a Meter takes them all the same, because a typing error in a rare path must not stop a shard.
METRICS: dict[str, Metric] = {
    "llm_im_build_info": Metric(
        "gauge", "1 for each gateway, with the versions of LLM-Incident-Manager and Python."
    ),
    "llm_im_alerts_received_total": Metric(
        "counter", "Alerts that reached a shard, by door; one requested again with its body counts twice."
    ),
    "llm_im_alerts_refused_total": Metric("counter", "Alerts refused because they can't be read, by door."),
    "llm_im_alerts_forbidden_total": Metric(
        "counter", "Alerts refused because their token is bound to other labels, by door and token."
    ),
    "llm_im_alerts_no_room_total": Metric(
        "counter", "Alerts refused because memory is used up, by door, bound (sender or shard) and token."
    ),
    "llm_im_heartbeat_alerts_total": Metric("counter", "Alerts that were beats of heartbeats."),
    "llm_im_alerts_filtered_total": Metric(
        "counter", "Alerts dropped by a filter of the settings, by door, filter and reason."
    ),
    "llm_im_relabel_failed_total": Metric(
        "counter", "Alerts that a relabelling rule could not be applied to, by rule: taken without it."
    ),
    "llm_im_correlated_total": Metric("counter", "Changes of incidents that the correlator heard of."),
    "llm_im_relations_told_total": Metric(
        "counter", "Times that a shard was told what one of its incidents is related to."
    ),
    "llm_im_relations_waiting": Metric("gauge", "Incidents of which a shard is still to be told that."),
    "llm_im_situations_open": Metric("gauge", "Situations with an open incident."),
    "llm_im_topology_services": Metric("gauge", "Services that the correlator knows."),
    "llm_im_topology_dependencies": Metric("gauge", "Dependencies between them that it knows."),
    "llm_im_shard_bytes": Metric("gauge", "Bytes of alerts and incidents that a shard keeps in memory."),
    "llm_im_shard_bytes_max": Metric("gauge", "The most bytes it may keep (lifecycle.max_shard_bytes)."),
    "llm_im_sender_bytes": Metric("gauge", "Bytes used by the sender that uses most."),
    "llm_im_alert_streams": Metric(
        "gauge", "WebSockets open at a gateway that bring alerts (/v1/stream/alerts)."
    ),
    "llm_im_source_up": Metric(
        "gauge", "1 while a collector can fetch from a source and store what it gets, 0 while not, by source."
    ),
    "llm_im_queue_messages_total": Metric(
        "counter",
        "Messages of queues that are over, by source and outcome (stored, or dead_letter for one that can't be read).",
    ),
    "llm_im_queue_lag": Metric(
        "gauge",
        "Messages that wait in a queue, those that a collector holds included, by source and partition.",
    ),
    "llm_im_queue_held": Metric(
        "gauge", "Messages of a queue that a collector holds and has not acknowledged, by source."
    ),
    "llm_im_certificate_days": Metric(
        "gauge", "Days until the certificate expires that a door presents; negative afterwards."
    ),
    "llm_im_grpc_connections": Metric("gauge", "Connections of gRPC clients to a gateway."),
    "llm_im_grpc_strangers": Metric(
        "gauge", "Those of them on which no call has shown a token or a certificate yet."
    ),
    "llm_im_grpc_calls": Metric("gauge", "gRPC calls that a gateway works on, streams included."),
    "llm_im_edge_streams": Metric("gauge", "Streams of edge agents open at a gateway."),
    "llm_im_edge_actions_total": Metric(
        "counter",
        "Final answers of edge agents, by type of action and outcome (succeeded, failed, rejected).",
    ),
    "llm_im_edge_answers_unknown_total": Metric(
        "counter", "Answers of edge agents for actions that they were not given."
    ),
    "llm_im_requests_refused_total": Metric("counter", "Requests refused as a whole, by door and reason."),
    "llm_im_rate_limited_total": Metric(
        "counter",
        "Requests refused because alerts come too fast, by limit (sender, or all together) and token.",
    ),
    "llm_im_rate_limit": Metric(
        "gauge", "Alerts a second that are allowed, by limit (sender, or all together) and token."
    ),
    "llm_im_alerts_decided_total": Metric("counter", "Alerts decided by a shard, by decision."),
    "llm_im_log_cuts_total": Metric("counter", "Torn tails cut off when a log was opened."),
    "llm_im_recoveries_total": Metric("counter", "Times a shard rebuilt its state from its log."),
    "llm_im_commands_total": Metric(
        "counter", "Actions of people on incidents, refused ones included, by verb."
    ),
    "llm_im_effects_failed_total": Metric("counter", "Effects that could not be delivered and were retried."),
    "llm_im_effects_waiting": Metric("gauge", "Effects in flight or waiting for their turn."),
    "llm_im_control_version": Metric("gauge", "Version of the slot map that a shard uses."),
    "llm_im_shard_ready": Metric("gauge", "1 while the shard answers, 0 while it recovers."),
    "llm_im_classifiers_replaced_total": Metric(
        "counter", "Classifiers restarted because they did not answer."
    ),
    "llm_im_model_failed_total": Metric(
        "counter", "Models that a classifier could not open or that failed: the rules decide instead."
    ),
    "llm_im_shadow_compared_total": Metric(
        "counter",
        "Incidents of which the shadow was asked as well, by what (severity or type) and whether it agrees (yes or no).",
    ),
    "llm_im_classify_failed_total": Metric("counter", "Classifications that failed."),
    "llm_im_dead_letters_lost_total": Metric(
        "counter", "Dead letters dropped because their store was full or not available, by door."
    ),
    "llm_im_ingest_batch_size": Metric("histogram", "Alerts made durable by one append.", _SIZES),
    "llm_im_ingest_seconds": Metric(
        "histogram", "Time from a request's arrival to its durable answer.", _SECONDS
    ),
    "incident_processing_queue_depth": Metric("gauge", "Alerts (shards) or calls (other actors) that wait."),
    "llm_im_inflight_alerts": Metric("gauge", "Alerts a gateway holds for its shards."),
    "llm_im_append_seconds": Metric("histogram", "Time of one append to the log.", _SECONDS),
    "llm_im_append_frames": Metric("histogram", "Frames in one append: how well group commit works.", _SIZES),
    "llm_im_log_bytes_total": Metric("counter", "Bytes appended to the log."),
    "llm_im_dedup_ratio": Metric("gauge", "Share of decided alerts that were repeats or duplicates, 0 to 1."),
    "llm_im_open_incidents": Metric("gauge", "Incidents neither resolved nor closed."),
    "llm_im_open_series": Metric("gauge", "Firing series."),
    "llm_im_round_seconds": Metric(
        "histogram", "One round of a shard's loop: group, reads, snapshot.", _SECONDS
    ),
    "llm_im_snapshot_slice_seconds": Metric("histogram", "The snapshot's part of a round.", _SECONDS),
    "llm_im_snapshots_total": Metric("counter", "Snapshots completed."),
    "llm_im_snapshot_seconds": Metric("gauge", "How long the last snapshot took."),
    "llm_im_recovery_seconds": Metric(
        "gauge", "How long the last recovery took, from opening the log to ready."
    ),
    "llm_im_deaf_seconds_total": Metric(
        "counter", "Time in reception gaps, when a shard could hear no gateway."
    ),
    "llm_im_clock_set_back_total": Metric(
        "counter", "Times a shard's clock had been ahead and deadlines were corrected."
    ),
    "llm_im_clock_ahead_seconds": Metric("gauge", "How far a shard's time is ahead of its clock."),
    "llm_im_sender_clock_skew_seconds": Metric(
        "gauge",
        "How far a sender's clock is ahead of ours, negative if behind, judged by the times it sends; by source.",
    ),
    "llm_im_sender_clock_skewed_total": Metric(
        "counter", "Requests whose times show that their sender's clock is wrong, by source."
    ),
    "llm_im_dead_letters_kept": Metric(
        "gauge", "Dead letters in their store, which all gateways share: each says the same."
    ),
    "llm_im_dead_letters_kept_bytes": Metric("gauge", "What those take of dead_letters.max_bytes, likewise."),
    "llm_im_dead_letters_dropped": Metric(
        "gauge", "Dead letters that were dropped past their store's bounds since it was made, likewise."
    ),
    "llm_im_dead_letters_replayed_total": Metric(
        "counter", "Dead letters that were read again, by door and outcome (stored, refused, waiting)."
    ),
    "llm_im_dead_letters_total": Metric("counter", "Dead letters handed to their store, by door."),
    "llm_im_classified_total": Metric("counter", "Incidents classified."),
    "llm_im_actions_total": Metric("counter", "Actions tried, by outcome."),
    "llm_im_pages_total": Metric(
        "counter", "Contacts of people on call: told, failed, or nobody where none could be found."
    ),
    "llm_im_target_broken": Metric(
        "gauge", "1 while a target is not called because it fails, or tried again; by target."
    ),
    "llm_im_target_opened_total": Metric("counter", "Times a target was given up for a while, by target."),
    "llm_im_target_in_flight": Metric("gauge", "Calls to a target that are under way, by target."),
    "llm_im_target_calls_refused_total": Metric(
        "counter",
        "Calls that were not made, by target and why: open (it fails), busy (all places taken), rate (called too often).",
    ),
    "llm_im_playbook_actions_total": Metric(
        "counter", "What runs of playbooks asked for, by type of action and outcome."
    ),
    "llm_im_runs_active": Metric("gauge", "Runs of playbooks under way."),
    "llm_im_notifications_given_up": Metric(
        "gauge",
        "Incidents whose last notification was given up; 0 is good. Counted until they are archived.",
    ),
    "llm_im_notifications_discarded_total": Metric(
        "counter", "Incidents of which nobody was told because a route discards them, by route."
    ),
    "llm_im_archived_total": Metric("counter", "Incidents moved to the archive."),
    "llm_im_backups_total": Metric("counter", "Scheduled backups made."),
    "llm_im_backup_failures_total": Metric("counter", "Scheduled backups that failed; the log says why."),
    "llm_im_backup_success_timestamp_seconds": Metric(
        "gauge", "The moment of the newest complete backup, in seconds since the epoch."
    ),
    "llm_im_backup_seconds": Metric("gauge", "How long the last backup took."),
    "llm_im_backup_bytes": Metric("gauge", "Bytes of all files that the last backup needs."),
    "llm_im_backup_written_bytes": Metric(
        "gauge", "Bytes that the last backup wrote; the rest already existed."
    ),
    "llm_im_stream_clients": Metric("gauge", "Clients of the live stream at a gateway."),
    "llm_im_stream_behind_frames": Metric("gauge", "Frames that the slowest client has yet to read."),
    "llm_im_stream_dropped_total": Metric("counter", "Clients of the live stream disconnected, by reason."),
    "llm_im_stream_resets_total": Metric(
        "counter", "Times a client of the live stream missed events and was told so, by reason."
    ),
    "llm_im_published_total": Metric("counter", "Changes of incidents written to the feed in Redis."),
    "llm_im_publish_away": Metric("gauge", "1 while the Redis of the feed can't be written, else 0."),
    "llm_im_publish_behind_frames": Metric("gauge", "Frames that the feed has yet to read from the logs."),
    "llm_im_publish_resets_total": Metric(
        "counter", "Times the feed of a partition was rebuilt from its shard, by reason."
    ),
    "llm_im_announced_total": Metric("counter", "Events of incidents written to the queue, by topic."),
    "llm_im_announce_left_out_total": Metric(
        "counter", "Events of incidents that are too large for the queue, by topic."
    ),
    "llm_im_announce_away": Metric("gauge", "1 while events can't be written to the queue, else 0."),
    "llm_im_announce_behind_frames": Metric(
        "gauge", "Frames of the logs that are yet to be written to the queue."
    ),
    "llm_im_announce_gaps_total": Metric(
        "counter", "Times events may be missing in the queue and its readers were told so, by reason."
    ),
}


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One series of a counter or gauge."""

    name: str
    labels: dict[str, str]
    value: float


class HistogramSample(msgspec.Struct, frozen=True, array_like=True):
    """One series of a histogram. `counts` has one entry a bound of METRICS[name].buckets and one for above;
    each counts its own bucket alone."""

    name: str
    labels: dict[str, str]
    counts: list[int]
    sum: float


class ActorMetrics(msgspec.Struct, frozen=True, array_like=True):
    """One actor's reading. `labels` go on each of its series, beside actor=`name`."""

    name: str
    labels: dict[str, str]
    counters: list[Sample] = []
    gauges: list[Sample] = []
    histograms: list[HistogramSample] = []


_Key = tuple[str, tuple[tuple[str, str], ...]]


class Meter:
    """An actor's counters. Plain dictionaries: about half a microsecond a call, so call it once a batch."""

    __slots__ = ("_counters", "_gauges", "_histograms", "_labels", "_name")

    def __init__(self, name: str, **labels: str) -> None:
        self._name = name
        self._labels = labels
        self._counters: dict[_Key, float] = {}
        self._gauges: dict[_Key, float] = {}
        self._histograms: dict[_Key, tuple[list[int], list[float]]] = {}

    @property
    def name(self) -> str:
        """The actor's."""
        return self._name

    def count(self, metric: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        key = (metric, tuple(labels.items()))
        self._counters[key] = self._counters.get(key, 0) + by

    def total(self, metric: str, value: float, **labels: str) -> None:
        """Set a counter to a total that is kept elsewhere, as a shard keeps its decisions."""
        self._counters[(metric, tuple(labels.items()))] = value

    def set(self, metric: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._gauges[(metric, tuple(labels.items()))] = value

    def forget(self, metric: str, **labels: str) -> None:
        """Remove a gauge: what it is about is no longer ours."""
        self._gauges.pop((metric, tuple(labels.items())), None)

    def observe(self, metric: str, value: float, **labels: str) -> None:
        """Put one value into a histogram."""
        buckets = buckets_of(metric)
        key = (metric, tuple(labels.items()))
        found = self._histograms.get(key)
        if found is None:
            found = self._histograms[key] = ([0] * (len(buckets) + 1), [0.0])
        counts, total = found
        counts[bisect_left(buckets, value)] += 1
        total[0] += value

    def read(self) -> ActorMetrics:
        """All of it as it is now."""
        return ActorMetrics(
            self._name,
            dict(self._labels),
            [Sample(name, dict(labels), value) for (name, labels), value in self._counters.items()],
            [Sample(name, dict(labels), value) for (name, labels), value in self._gauges.items()],
            [
                HistogramSample(name, dict(labels), list(counts), total[0])
                for (name, labels), (counts, total) in self._histograms.items()
            ],
        )


def buckets_of(metric: str) -> tuple[float, ...]:
    """The upper bounds of a histogram; those for seconds when METRICS does not know it."""
    known = METRICS.get(metric)
    return known.buckets if known is not None and known.buckets else _SECONDS


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ActorMetrics)


def encode(metrics: ActorMetrics) -> bytes:
    """MessagePack of a reading."""
    return _encoder.encode(metrics)


def decode(data: bytes) -> ActorMetrics:
    """The reading in `data`. Raises msgspec.ValidationError or DecodeError when it is none."""
    return _decoder.decode(data)
