"""All settings: one line a section, each of which is a file beside this one. Loaded by services/settings/load.py.

A section has every setting's unit, default and bounds, and says in for_process() who goes by it. A description there is
what docs/configuration.md, the schema and an editor say. LIVE marks what `llm-im config reload` changes without a restart
(services/wiring/reload.py), LATER what nothing answers yet. Write a duration as `Duration`, a secret as `Secret`.
"""

from __future__ import annotations

from collections.abc import Iterator

from models.errors import Broken
from models.settings import later
from models.settings.auth import Auth
from models.settings.classification import Classification
from models.settings.correlation import Correlation
from models.settings.dead_letters import DeadLetterSettings
from models.settings.dedup import Dedup
from models.settings.disaster_recovery import DisasterRecovery
from models.settings.formats import Formats
from models.settings.grouping import Grouping
from models.settings.heartbeats import Heartbeats
from models.settings.ingest import Ingest
from models.settings.inhibition import Inhibition
from models.settings.integrations import Integrations
from models.settings.learning import Learning
from models.settings.lifecycle import Lifecycle
from models.settings.logging import Logging
from models.settings.messaging import Messaging, Worker
from models.settings.notify import Notify
from models.settings.outbound import OutboundSettings
from models.settings.playbooks import Playbooks
from models.settings.publish import Publish
from models.settings.pull import Pull
from models.settings.resource_limits import ResourceLimits
from models.settings.server import Server
from models.settings.silences import Silences
from models.settings.state import State
from models.settings.targets import Targets
from models.settings.telemetry import Telemetry
from models.settings.values import Section
from models.settings.verification import Verification


class Settings(Section):
    """Every setting. The defaults work on one machine without a file."""

    server: Server = Server()
    state: State = State()
    grouping: Grouping = Grouping()
    lifecycle: Lifecycle = Lifecycle()
    dedup: Dedup = Dedup()
    classification: Classification = Classification()
    learning: Learning = Learning()
    correlation: Correlation = Correlation()
    notify: Notify = Notify()
    playbooks: Playbooks = Playbooks()
    verification: Verification = Verification()
    outbound: OutboundSettings = OutboundSettings()
    silences: Silences = Silences()
    inhibition: Inhibition = Inhibition()
    heartbeats: Heartbeats = Heartbeats()
    publish: Publish = Publish()
    targets: Targets = Targets()
    formats: Formats = Formats()
    pull: Pull = Pull()
    messaging: Messaging = Messaging()
    worker: Worker = Worker()
    ingest: Ingest = Ingest()
    auth: Auth = Auth()
    logging: Logging = Logging()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    telemetry: Telemetry = Telemetry()
    disaster_recovery: DisasterRecovery = DisasterRecovery()

    deployment: later.Deployment = later.Deployment()
    resource_limits: ResourceLimits = ResourceLimits()
    coordination: later.Coordination = later.Coordination()
    sidecar: later.Sidecar = later.Sidecar()
    local_actions: later.LocalActions = later.LocalActions()
    forwarding: later.Forwarding = later.Forwarding()
    ha: later.HighAvailability = later.HighAvailability()
    failover: later.Failover = later.Failover()
    integrations: Integrations = Integrations()

    def sections(self) -> Iterator[tuple[str, Section]]:
        """Every section by its name, in their order."""
        for name in type(self).model_fields:
            yield name, getattr(self, name)

    def given_to(self, kind: str) -> dict[str, object]:
        """What processes of a kind go by, out of every section; secrets as Secret. Raises Broken for a name that two
        sections give."""
        given: dict[str, object] = {}
        for _name, section in self.sections():
            for name, value in section.for_process(kind, self.state.partitions).items():
                if name in given:
                    raise Broken(f"two sections give {name} to {kind} processes")
                given[name] = value
        return given
