"""Becomes the command it is given, and is killed by the kernel as soon as its parent has ended.

Run as a script by `processes`, never imported: `python -I -S tether.py PARENT COMMAND [ARGUMENT ...]`.
It stands between fork and exec because Python's own hook for that place, `preexec_fn`, may deadlock
when there are threads.

Source: prctl(2), PR_SET_PDEATHSIG: the setting survives execve; it fires when the *thread* that made
this child ends, not only its process. Elsewhere than on Linux the command is merely started.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1

parent, command = int(sys.argv[1]), sys.argv[2:]
given = dict(os.environb)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # The parent ended before the kernel was asked: nobody would ever end us.
        sys.exit(f"{command[0]} was not started: the process that wanted it has ended")
    # Python adds LC_CTYPE to its environment where no locale is set (PEP 538): hand on what was given.
    variables = Path("/proc/self/environ").read_bytes().split(b"\0")[:-1]
    given = dict(variable.split(b"=", 1) for variable in variables)
for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(ignored_by_python, signal.SIG_DFL)
try:
    os.execvpe(command[0], command, given)  # noqa: S606 - no shell is wanted
except OSError as error:
    print(f"{command[0]} cannot be run: {error.strerror}", file=sys.stderr)
    sys.exit(127)
