"""The parts of a simulated run, in the order in which they begin. Another one is a file here and a line below."""

from __future__ import annotations

from tests.simulation.area import Area
from tests.simulation.areas.alerts import Alerts
from tests.simulation.areas.clocks import Clocks
from tests.simulation.areas.control import Control
from tests.simulation.areas.edge import Edge
from tests.simulation.areas.followers import Followers
from tests.simulation.areas.heartbeats import Heartbeats
from tests.simulation.areas.mutes import Mutes
from tests.simulation.areas.notifications import Notifications
from tests.simulation.areas.paging import Paging
from tests.simulation.areas.peers import Peers
from tests.simulation.areas.people import People
from tests.simulation.areas.processes import Processes
from tests.simulation.areas.reads import Reads
from tests.simulation.areas.relations import Relations
from tests.simulation.areas.runs import Runs
from tests.simulation.areas.stores import Stores
from tests.simulation.areas.verification import Verification

AREAS: tuple[type[Area], ...] = (
    Alerts,
    People,
    Peers,
    Notifications,
    Mutes,
    Runs,
    Verification,
    Processes,
    Stores,
    Clocks,
    Control,
    Reads,
    Followers,
    Heartbeats,
    Relations,
    Edge,
    Paging,
)
