"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

Begin a command that ends when the process which began it ends, however that ends: `child.py PARENT COMMAND …`.

Linux sends the signal; elsewhere a training outlives a killed sweep, and the resumed one waits for it. SIGTERM and not
SIGKILL, as a training saves its step before it goes. Run as a file by a bare Python, so that it costs 20 ms.
"""

import os
import signal
import sys

SET_PDEATHSIG = 1  # of prctl(2); kept over exec


def main(parent: int, command: list[str]) -> None:
    """Become the command."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before it was watched
        sys.exit(128 + signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray's processes block SIGINT
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
