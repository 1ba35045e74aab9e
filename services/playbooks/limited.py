"""Starts a program under limits: run as a script of its own by actions/script.py, `python -I -S limited.py MIB PROGRAM ARGS...`. It
imports nothing of ours. The limits are set before the program is, in the process that becomes it: setting them between fork and
exec of a process with threads could hang it.
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
#: As a shell says it: the program can't be run.
CANNOT_RUN = 126


def main() -> None:
    limit = int(sys.argv[1]) * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # If the responder dies, what it started must not go on beside what is started anew.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        os.execv(sys.argv[2], sys.argv[2:])
    except OSError as error:
        print(f"can't be run: {error.strerror}", file=sys.stderr)
        sys.exit(CANNOT_RUN)


if __name__ == "__main__":
    main()
