"""Plain classes that own state; each a short loop around one model. Only runtime/cluster.py knows of Ray."""

import sys

if "rich" not in sys.modules:
    # structlog imports it where it is installed, for tracebacks in colours that nobody here asks for: 45 ms of each actor's
    # start, and an actor that was killed is away for 0.6 s in all. The command line imports it for itself.
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog.dev  # noqa: F401 - without rich, once and for all

    del sys.modules["rich"]
