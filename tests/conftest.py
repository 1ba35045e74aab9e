"""What all folders share: how far property tests search, and the garbage collector, which a shard sets up for what it takes
for its own process."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

#: By hand: chance, a database of what failed, and the smallest example of a failure, which may take five minutes.
settings.register_profile("search", deadline=None)
#: In the lanes of `make test`: the same examples each time, so that who breaks something sees it and nobody else does; a
#: failure ends at once and is made small by hand, with `--hypothesis-profile=search`. No deadline in either: on a busy machine a
#: slow example says nothing.
settings.register_profile(
    "lane",
    deadline=None,
    max_examples=100,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("search")


# readline, which pytest imports, tells the size of its terminal to all that is started after it; a test that makes a terminal
# says how large it is. A worker of pytest-xdist inherits it, and hands it on.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)

#: At Python's own 700 the collector walks young objects again and again: a seventh of all computing of these tests, and two
#: thirds of what reading all our code takes.
gc.set_threshold(10_000, 20, 20)


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    # Who starts as a process does sets up where its log goes, for all that runs after it.
    before = structlog.get_config() if structlog.is_configured() else None
    yield
    if before is None:
        structlog.reset_defaults()
    else:
        structlog.configure(**before)


@pytest.fixture(autouse=True)
def _collect_garbage() -> Iterator[None]:
    # A shard that recovers switches the collector off.
    yield
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def _give_garbage_back() -> Iterator[None]:
    # And it collects and freezes all there is: what a whole test run has gathered took 0.3 s for each shard of each test
    # when it was given back after every test.
    yield
    gc.unfreeze()
