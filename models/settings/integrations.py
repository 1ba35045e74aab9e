"""The plan's sections for other LLM systems: where we connect to them (services/ingest/sources), and what they say of actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from models.settings import later
from models.settings.dialled import Dialled, grpc_place
from models.settings.ingest import SentinelFilters
from models.settings.processes import COLLECTOR, RESPONDER, SHARD
from models.settings.secrets import Secret
from models.settings.values import LATER, LIVE, Duration, MaybeDuration, Section, wrong_url


class ShieldActions(Section):
    """Which actions need approval."""

    auto_isolate: bool | None = Field(
        None,
        description="`false`: `isolate` needs approval. Unset or `true`: as the playbook and the policy say.",
    )
    require_approval_for: list[str] = Field(
        [],
        max_length=1000,
        description="Actions that need approval: by their `type`, by the plan's name (`Rollback`), or by what a playbook's `http` or `script` says it `stands_for` (`UserBanning`).",
    )
    notification_channels: list[str] = Field([], json_schema_extra=LATER)


class Sentinel(Dialled):
    """LLM-Sentinel: [we connect to it](pull.md#llm-sentinel), and it streams its alerts. What it sends by itself is taken all the same."""

    endpoint: str | None = Field(
        None,
        description="Its host and port: `llm-sentinel:9090`; `https://llm-sentinel:9090` for TLS without files of our own.",
    )
    protocol: Literal["grpc"] | None = Field(None, description="`grpc`.")
    buffer_size: int = Field(
        10_000, ge=1, le=100_000, description="Alerts that are read and not acknowledged yet, at most."
    )
    filters: SentinelFilters = SentinelFilters()

    @field_validator("endpoint")
    @classmethod
    def _is_place(cls, value: str | None) -> str | None:
        return grpc_place(value)


class Shield(Dialled):
    """LLM-Shield: [we ask it](pull.md#llm-shield) for its incidents. What it posts to `/v1/events/llm-shield` is taken all the same."""

    endpoint: str | None = Field(None, description="Its address: `https://llm-shield:8443`.")
    protocol: Literal["http", "https"] | None = Field(
        None, description="`http` or `https`, as the endpoint says."
    )
    poll_interval: Duration = Field(
        10.0, gt=0, le=86_400, description="How long after one answer the next is asked for."
    )
    actions: ShieldActions = ShieldActions()

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value and (wrong := wrong_url(value)):
            raise ValueError(wrong)
        return value

    @model_validator(mode="after")
    def _is_as_its_protocol(self) -> Shield:
        if self.endpoint and self.protocol and not self.endpoint.lower().startswith(f"{self.protocol}://"):
            raise ValueError(f"endpoint: expected one that begins with {self.protocol}://, as protocol says")
        return self


class EdgeRemediation(Section):
    """Bounds of all actions of playbooks that change something."""

    allowed_actions: list[str] = Field(
        [],
        max_length=1000,
        description="The only actions that may be done, by `type` or by the plan's name: `Restart`, `Rollback`, `ScaleHorizontal`, `ConfigChange`, `TrafficShift`, `Isolate`, `HttpCall`, `Script`. Empty: all.",
    )
    require_approval: list[str] = Field(
        [], max_length=1000, description="Actions that need approval, by the same names."
    )
    timeout: MaybeDuration = Field(
        None, gt=0, description="Longest time for one action. None: as the playbook says."
    )
    retry_limit: int | None = Field(
        None, ge=0, le=1000, description="Most further tries of one action. None: as the playbook says."
    )


class EdgeAgent(Dialled):
    """LLM-Edge-Agent. It keeps a stream to the gRPC port open ([edge agents](edge.md)), or we [connect](pull.md#llm-edge-agent) to those of `endpoints`; or it sends its alerts to `/v1/events/llm-edge-agent`."""

    discovery_mode: Literal["kubernetes", "static", "consul"] | None = Field(
        None,
        description='How agents that we connect to are found: "static", by `endpoints`. The others are not built yet.',
    )
    endpoints: list[str] = Field(
        [],
        max_length=1000,
        description='Agents that we connect to, as host and port: `["edge-1:9090"]`; `https://edge-1:9090` for TLS without files of our own.',
    )
    namespace: str | None = Field(None, json_schema_extra=LATER)
    label_selector: str | None = Field(None, json_schema_extra=LATER)
    connection_pool_size: int | None = Field(None, ge=1, json_schema_extra=LATER)
    offline_after: MaybeDuration = Field(
        60.0,
        ge=1,
        le=7 * 86_400,
        description='An agent whose stream is away for so long opens an alert, and its return ends it. "none": never.',
        json_schema_extra=LIVE,
    )
    remediation: EdgeRemediation = EdgeRemediation()

    @field_validator("endpoints")
    @classmethod
    def _are_places(cls, value: list[str]) -> list[str]:
        for each in value:
            grpc_place(each)
        if twice := next((each for each in value if value.count(each) > 1), ""):
            raise ValueError(f"expected each endpoint once, but {twice} is there twice")
        return value


class GovernancePolicies(Section):
    """How the policy is asked."""

    evaluate_before_action: bool = Field(
        True, description="`false`: the server is not asked, and `playbooks.policy.files` count."
    )
    cache_decisions: bool = Field(True, description="Whether a decision is used again for the same question.")
    cache_ttl: Duration = Field(300.0, le=86_400, description="For how long.")
    fail_open: bool = Field(
        False,
        description="`true`: what can't be asked is allowed. `false`: it is denied, and the incident says so.",
    )


class Governance(Section):
    """LLM-Governance-Core, or any server that speaks OPA's data API: asked before each action that changes something."""

    enabled: bool = Field(False, description="Whether it is asked.")
    endpoint: str | None = Field(
        None, description="URL of the decision: `http://opa:8181/v1/data/incidents`."
    )
    protocol: Literal["grpc", "http", "https"] | None = Field(
        None, description="`http` or `https`, as the endpoint says. `grpc` is not available yet."
    )
    auth_token_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable of `llm-im up` with the bearer token.",
    )
    auth_token: Secret | None = Field(None, description="The bearer token itself, instead. Secret.")
    policies: GovernancePolicies = GovernancePolicies()
    audit: later.GovernanceAudit = later.GovernanceAudit()

    @model_validator(mode="after")
    def _can_be_asked(self) -> Governance:
        if self.enabled and not self.endpoint:
            raise ValueError("endpoint: expected the URL of the decision, because it is enabled")
        if self.enabled and self.protocol == "grpc":
            raise ValueError("protocol: expected http or https: grpc is not available yet")
        return self

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value and (wrong := wrong_url(value)):
            raise ValueError(wrong)
        return value

    @property
    def is_asked(self) -> bool:
        return self.enabled and self.policies.evaluate_before_action


class Integrations(Section):
    """Other LLM systems."""

    llm_sentinel: Sentinel = Sentinel()
    llm_shield: Shield = Shield()
    llm_edge_agent: EdgeAgent = EdgeAgent()
    llm_governance_core: Governance = Governance()

    def for_process(self, kind: str, partitions: int) -> Mapping[str, object]:
        if kind == COLLECTOR:
            return {
                "dial_sentinel": self.llm_sentinel.dialled() | {"buffer_size": self.llm_sentinel.buffer_size},
                "dial_shield": self.llm_shield.dialled() | {"interval": self.llm_shield.poll_interval},
                "dial_edge": self.llm_edge_agent.dialled() | {"endpoints": self.llm_edge_agent.endpoints},
            }
        if kind == SHARD:
            return {"edge_offline_after_s": self.llm_edge_agent.offline_after or 0.0}
        if kind != RESPONDER:
            return {}
        governance, policies = self.llm_governance_core, self.llm_governance_core.policies
        edge, shield = self.llm_edge_agent.remediation, self.llm_shield.actions
        return {
            "governance": {
                "url": governance.endpoint if governance.is_asked else "",
                "token": governance.auth_token,
                "token_env": governance.auth_token_env or "",
                "keep_s": policies.cache_ttl if policies.cache_decisions else 0.0,
                "fail_open": policies.fail_open,
            },
            "house_rules": {
                "allowed": edge.allowed_actions,
                "approval_for": [*edge.require_approval, *shield.require_approval_for],
                "auto_isolate": shield.auto_isolate is not False,
                "retries": -1 if edge.retry_limit is None else edge.retry_limit,
                "timeout_s": edge.timeout or 0.0,
            },
        }
