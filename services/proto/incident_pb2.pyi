from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AlertType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALERT_TYPE_UNSPECIFIED: _ClassVar[AlertType]
    ALERT_TYPE_INFRASTRUCTURE: _ClassVar[AlertType]
    ALERT_TYPE_APPLICATION: _ClassVar[AlertType]
    ALERT_TYPE_SECURITY: _ClassVar[AlertType]
    ALERT_TYPE_DATA: _ClassVar[AlertType]
    ALERT_TYPE_PERFORMANCE: _ClassVar[AlertType]
    ALERT_TYPE_AVAILABILITY: _ClassVar[AlertType]
    ALERT_TYPE_COMPLIANCE: _ClassVar[AlertType]
    ALERT_TYPE_UNKNOWN: _ClassVar[AlertType]

class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEVERITY_UNSPECIFIED: _ClassVar[Severity]
    SEVERITY_P0: _ClassVar[Severity]
    SEVERITY_P1: _ClassVar[Severity]
    SEVERITY_P2: _ClassVar[Severity]
    SEVERITY_P3: _ClassVar[Severity]
    SEVERITY_P4: _ClassVar[Severity]

class AckStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACK_STATUS_UNSPECIFIED: _ClassVar[AckStatus]
    ACK_STATUS_ACCEPTED: _ClassVar[AckStatus]
    ACK_STATUS_DUPLICATE: _ClassVar[AckStatus]
    ACK_STATUS_DROPPED: _ClassVar[AckStatus]
    ACK_STATUS_RETRY: _ClassVar[AckStatus]

class ThreatType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    THREAT_TYPE_UNSPECIFIED: _ClassVar[ThreatType]
    THREAT_TYPE_MALICIOUS_ACCESS: _ClassVar[ThreatType]
    THREAT_TYPE_DATA_EXFILTRATION: _ClassVar[ThreatType]
    THREAT_TYPE_POLICY_VIOLATION: _ClassVar[ThreatType]

class SecuritySeverity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SECURITY_SEVERITY_UNSPECIFIED: _ClassVar[SecuritySeverity]
    SECURITY_SEVERITY_CRITICAL: _ClassVar[SecuritySeverity]
    SECURITY_SEVERITY_HIGH: _ClassVar[SecuritySeverity]
    SECURITY_SEVERITY_MEDIUM: _ClassVar[SecuritySeverity]
    SECURITY_SEVERITY_LOW: _ClassVar[SecuritySeverity]

class MitigationStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MITIGATION_STATUS_UNSPECIFIED: _ClassVar[MitigationStatus]
    MITIGATION_STATUS_NONE: _ClassVar[MitigationStatus]
    MITIGATION_STATUS_IN_PROGRESS: _ClassVar[MitigationStatus]
    MITIGATION_STATUS_MITIGATED: _ClassVar[MitigationStatus]
    MITIGATION_STATUS_FAILED: _ClassVar[MitigationStatus]

class ActionStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_STATUS_UNSPECIFIED: _ClassVar[ActionStatus]
    ACTION_STATUS_ACCEPTED: _ClassVar[ActionStatus]
    ACTION_STATUS_SUCCEEDED: _ClassVar[ActionStatus]
    ACTION_STATUS_FAILED: _ClassVar[ActionStatus]
    ACTION_STATUS_REJECTED: _ClassVar[ActionStatus]

class HealthStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEALTH_STATUS_UNSPECIFIED: _ClassVar[HealthStatus]
    HEALTH_STATUS_HEALTHY: _ClassVar[HealthStatus]
    HEALTH_STATUS_DEGRADED: _ClassVar[HealthStatus]
    HEALTH_STATUS_UNHEALTHY: _ClassVar[HealthStatus]

class ActionType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_TYPE_UNSPECIFIED: _ClassVar[ActionType]
    ACTION_TYPE_RESTART: _ClassVar[ActionType]
    ACTION_TYPE_ROLLBACK: _ClassVar[ActionType]
    ACTION_TYPE_SCALE: _ClassVar[ActionType]
    ACTION_TYPE_CONFIG_CHANGE: _ClassVar[ActionType]
ALERT_TYPE_UNSPECIFIED: AlertType
ALERT_TYPE_INFRASTRUCTURE: AlertType
ALERT_TYPE_APPLICATION: AlertType
ALERT_TYPE_SECURITY: AlertType
ALERT_TYPE_DATA: AlertType
ALERT_TYPE_PERFORMANCE: AlertType
ALERT_TYPE_AVAILABILITY: AlertType
ALERT_TYPE_COMPLIANCE: AlertType
ALERT_TYPE_UNKNOWN: AlertType
SEVERITY_UNSPECIFIED: Severity
SEVERITY_P0: Severity
SEVERITY_P1: Severity
SEVERITY_P2: Severity
SEVERITY_P3: Severity
SEVERITY_P4: Severity
ACK_STATUS_UNSPECIFIED: AckStatus
ACK_STATUS_ACCEPTED: AckStatus
ACK_STATUS_DUPLICATE: AckStatus
ACK_STATUS_DROPPED: AckStatus
ACK_STATUS_RETRY: AckStatus
THREAT_TYPE_UNSPECIFIED: ThreatType
THREAT_TYPE_MALICIOUS_ACCESS: ThreatType
THREAT_TYPE_DATA_EXFILTRATION: ThreatType
THREAT_TYPE_POLICY_VIOLATION: ThreatType
SECURITY_SEVERITY_UNSPECIFIED: SecuritySeverity
SECURITY_SEVERITY_CRITICAL: SecuritySeverity
SECURITY_SEVERITY_HIGH: SecuritySeverity
SECURITY_SEVERITY_MEDIUM: SecuritySeverity
SECURITY_SEVERITY_LOW: SecuritySeverity
MITIGATION_STATUS_UNSPECIFIED: MitigationStatus
MITIGATION_STATUS_NONE: MitigationStatus
MITIGATION_STATUS_IN_PROGRESS: MitigationStatus
MITIGATION_STATUS_MITIGATED: MitigationStatus
MITIGATION_STATUS_FAILED: MitigationStatus
ACTION_STATUS_UNSPECIFIED: ActionStatus
ACTION_STATUS_ACCEPTED: ActionStatus
ACTION_STATUS_SUCCEEDED: ActionStatus
ACTION_STATUS_FAILED: ActionStatus
ACTION_STATUS_REJECTED: ActionStatus
HEALTH_STATUS_UNSPECIFIED: HealthStatus
HEALTH_STATUS_HEALTHY: HealthStatus
HEALTH_STATUS_DEGRADED: HealthStatus
HEALTH_STATUS_UNHEALTHY: HealthStatus
ACTION_TYPE_UNSPECIFIED: ActionType
ACTION_TYPE_RESTART: ActionType
ACTION_TYPE_ROLLBACK: ActionType
ACTION_TYPE_SCALE: ActionType
ACTION_TYPE_CONFIG_CHANGE: ActionType

class AlertMessage(_message.Message):
    __slots__ = ("alert_id", "source", "timestamp", "type", "severity", "labels", "description", "runbook_url", "affected_services", "resolved", "annotations", "trace_context")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AnnotationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ALERT_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    RUNBOOK_URL_FIELD_NUMBER: _ClassVar[int]
    AFFECTED_SERVICES_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    TRACE_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    alert_id: str
    source: str
    timestamp: int
    type: AlertType
    severity: Severity
    labels: _containers.ScalarMap[str, str]
    description: str
    runbook_url: str
    affected_services: _containers.RepeatedScalarFieldContainer[str]
    resolved: bool
    annotations: _containers.ScalarMap[str, str]
    trace_context: str
    def __init__(self, alert_id: _Optional[str] = ..., source: _Optional[str] = ..., timestamp: _Optional[int] = ..., type: _Optional[_Union[AlertType, str]] = ..., severity: _Optional[_Union[Severity, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., description: _Optional[str] = ..., runbook_url: _Optional[str] = ..., affected_services: _Optional[_Iterable[str]] = ..., resolved: _Optional[bool] = ..., annotations: _Optional[_Mapping[str, str]] = ..., trace_context: _Optional[str] = ...) -> None: ...

class AlertAck(_message.Message):
    __slots__ = ("alert_id", "incident_id", "status", "reason", "retry_after_ms")
    ALERT_ID_FIELD_NUMBER: _ClassVar[int]
    INCIDENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    alert_id: str
    incident_id: str
    status: AckStatus
    reason: str
    retry_after_ms: int
    def __init__(self, alert_id: _Optional[str] = ..., incident_id: _Optional[str] = ..., status: _Optional[_Union[AckStatus, str]] = ..., reason: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class AlertBatch(_message.Message):
    __slots__ = ("batch_id", "alerts")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    ALERTS_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    alerts: _containers.RepeatedCompositeFieldContainer[AlertMessage]
    def __init__(self, batch_id: _Optional[str] = ..., alerts: _Optional[_Iterable[_Union[AlertMessage, _Mapping]]] = ...) -> None: ...

class AlertBatchAck(_message.Message):
    __slots__ = ("batch_id", "acks")
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    ACKS_FIELD_NUMBER: _ClassVar[int]
    batch_id: str
    acks: _containers.RepeatedCompositeFieldContainer[AlertAck]
    def __init__(self, batch_id: _Optional[str] = ..., acks: _Optional[_Iterable[_Union[AlertAck, _Mapping]]] = ...) -> None: ...

class Asset(_message.Message):
    __slots__ = ("id", "type", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: str
    name: str
    def __init__(self, id: _Optional[str] = ..., type: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Indicator(_message.Message):
    __slots__ = ("type", "value", "description")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    type: str
    value: str
    description: str
    def __init__(self, type: _Optional[str] = ..., value: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class SecurityIncident(_message.Message):
    __slots__ = ("id", "timestamp", "threat_type", "severity", "affected_assets", "indicators", "mitigation_status", "context", "description")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    THREAT_TYPE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    AFFECTED_ASSETS_FIELD_NUMBER: _ClassVar[int]
    INDICATORS_FIELD_NUMBER: _ClassVar[int]
    MITIGATION_STATUS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    timestamp: int
    threat_type: ThreatType
    severity: SecuritySeverity
    affected_assets: _containers.RepeatedCompositeFieldContainer[Asset]
    indicators: _containers.RepeatedCompositeFieldContainer[Indicator]
    mitigation_status: MitigationStatus
    context: _containers.ScalarMap[str, str]
    description: str
    def __init__(self, id: _Optional[str] = ..., timestamp: _Optional[int] = ..., threat_type: _Optional[_Union[ThreatType, str]] = ..., severity: _Optional[_Union[SecuritySeverity, str]] = ..., affected_assets: _Optional[_Iterable[_Union[Asset, _Mapping]]] = ..., indicators: _Optional[_Iterable[_Union[Indicator, _Mapping]]] = ..., mitigation_status: _Optional[_Union[MitigationStatus, str]] = ..., context: _Optional[_Mapping[str, str]] = ..., description: _Optional[str] = ...) -> None: ...

class EdgeToIncidentMsg(_message.Message):
    __slots__ = ("alert", "action_result", "health")
    ALERT_FIELD_NUMBER: _ClassVar[int]
    ACTION_RESULT_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    alert: EdgeAlert
    action_result: ActionResult
    health: EdgeHealthUpdate
    def __init__(self, alert: _Optional[_Union[EdgeAlert, _Mapping]] = ..., action_result: _Optional[_Union[ActionResult, _Mapping]] = ..., health: _Optional[_Union[EdgeHealthUpdate, _Mapping]] = ...) -> None: ...

class EdgeAlert(_message.Message):
    __slots__ = ("agent_id", "alert")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    ALERT_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    alert: AlertMessage
    def __init__(self, agent_id: _Optional[str] = ..., alert: _Optional[_Union[AlertMessage, _Mapping]] = ...) -> None: ...

class ActionResult(_message.Message):
    __slots__ = ("agent_id", "action_id", "incident_id", "status", "detail", "outputs", "timestamp")
    class OutputsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_ID_FIELD_NUMBER: _ClassVar[int]
    INCIDENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    action_id: str
    incident_id: str
    status: ActionStatus
    detail: str
    outputs: _containers.ScalarMap[str, str]
    timestamp: int
    def __init__(self, agent_id: _Optional[str] = ..., action_id: _Optional[str] = ..., incident_id: _Optional[str] = ..., status: _Optional[_Union[ActionStatus, str]] = ..., detail: _Optional[str] = ..., outputs: _Optional[_Mapping[str, str]] = ..., timestamp: _Optional[int] = ...) -> None: ...

class EdgeHealthUpdate(_message.Message):
    __slots__ = ("agent_id", "status", "services", "can_do", "metrics", "detail", "timestamp", "request_id", "config_version")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    CAN_DO_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_VERSION_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    status: HealthStatus
    services: _containers.RepeatedScalarFieldContainer[str]
    can_do: _containers.RepeatedScalarFieldContainer[ActionType]
    metrics: _containers.ScalarMap[str, str]
    detail: str
    timestamp: int
    request_id: str
    config_version: int
    def __init__(self, agent_id: _Optional[str] = ..., status: _Optional[_Union[HealthStatus, str]] = ..., services: _Optional[_Iterable[str]] = ..., can_do: _Optional[_Iterable[_Union[ActionType, str]]] = ..., metrics: _Optional[_Mapping[str, str]] = ..., detail: _Optional[str] = ..., timestamp: _Optional[int] = ..., request_id: _Optional[str] = ..., config_version: _Optional[int] = ...) -> None: ...

class IncidentToEdgeMsg(_message.Message):
    __slots__ = ("action", "config", "health_check", "alert_ack")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    HEALTH_CHECK_FIELD_NUMBER: _ClassVar[int]
    ALERT_ACK_FIELD_NUMBER: _ClassVar[int]
    action: RemediationAction
    config: ConfigUpdate
    health_check: HealthCheckRequest
    alert_ack: AlertAck
    def __init__(self, action: _Optional[_Union[RemediationAction, _Mapping]] = ..., config: _Optional[_Union[ConfigUpdate, _Mapping]] = ..., health_check: _Optional[_Union[HealthCheckRequest, _Mapping]] = ..., alert_ack: _Optional[_Union[AlertAck, _Mapping]] = ...) -> None: ...

class RemediationAction(_message.Message):
    __slots__ = ("incident_id", "type", "target_service", "parameters", "timeout_seconds", "action_id")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    INCIDENT_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TARGET_SERVICE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ACTION_ID_FIELD_NUMBER: _ClassVar[int]
    incident_id: str
    type: ActionType
    target_service: str
    parameters: _containers.ScalarMap[str, str]
    timeout_seconds: int
    action_id: str
    def __init__(self, incident_id: _Optional[str] = ..., type: _Optional[_Union[ActionType, str]] = ..., target_service: _Optional[str] = ..., parameters: _Optional[_Mapping[str, str]] = ..., timeout_seconds: _Optional[int] = ..., action_id: _Optional[str] = ...) -> None: ...

class ConfigUpdate(_message.Message):
    __slots__ = ("version", "values")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    version: int
    values: _containers.ScalarMap[str, str]
    def __init__(self, version: _Optional[int] = ..., values: _Optional[_Mapping[str, str]] = ...) -> None: ...

class HealthCheckRequest(_message.Message):
    __slots__ = ("request_id", "target_service")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_SERVICE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    target_service: str
    def __init__(self, request_id: _Optional[str] = ..., target_service: _Optional[str] = ...) -> None: ...
