"""Settings of features that are not built yet, so that files containing them are still read and checked.

`llm-im config check` lists the ones that are set as "not active yet". `llm-im up` refuses to start if one of them turns
such a feature on (`refusals`): it never silently runs without something it was told to do.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from models.settings.values import LATER, Duration, Section

Severity = Literal["P0", "P1", "P2", "P3", "P4"]


class LaterSection(Section):
    model_config = ConfigDict(json_schema_extra=LATER)


class Deployment(LaterSection):
    """Which role this process has."""

    mode: Literal["standalone", "worker", "sidecar", "ha"] = "standalone"
    worker_type: Literal["all", "ingestion", "processing", "orchestration"] | None = None
    region: str | None = None
    availability_zones: list[str] = []


class Coordination(LaterSection):
    backend: Literal["redis"] | None = None
    cluster_nodes: list[str] = []


class Sidecar(LaterSection):
    parent_service: str | None = None
    local_only: bool | None = None
    sync_to_central: bool | None = None
    central_endpoint: str | None = None


class LocalActions(LaterSection):
    auto_restart: bool | None = None
    max_restarts: int | None = Field(None, ge=0)
    restart_backoff: Literal["exponential", "linear", "constant"] | None = None
    health_check_url: str | None = None


class Forwarding(LaterSection):
    forward_to_central: list[Severity] = []
    batch_size: int | None = Field(None, ge=1)
    batch_interval: Duration | None = None


class HighAvailability(LaterSection):
    min_replicas: int | None = Field(None, ge=1)
    max_replicas: int | None = Field(None, ge=1)
    replication_factor: int | None = Field(None, ge=1)
    quorum_size: int | None = Field(None, ge=1)


class Failover(LaterSection):
    enabled: bool = False
    detection_interval: Duration | None = None
    failover_timeout: Duration | None = None
    health_check_endpoints: list[str] = []


class GovernanceAudit(LaterSection):
    log_all_incidents: bool | None = None
    log_all_actions: bool | None = None
    retention_days: int | None = Field(None, ge=1)
    export_format: Literal["json", "parquet", "csv"] | None = None
