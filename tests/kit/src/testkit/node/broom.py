"""Removes what a node leaves behind: its cgroups, and its folder if the owner could not do it.

Run as a script by `testkit.node`, never imported: `python -I -S broom.py FOLDER [CGROUP ...]`, with a
pipe for stdin whose other end closes when the owner wants it swept, or has been killed. It alone of all that
a node starts outlives its owner, by a moment.
"""

import fcntl
import os
import shutil
import signal
import sys
import time
from pathlib import Path

WITHIN = 20
"""Seconds in which the kernel has surely ended the node's last process."""

folder, *cgroups = map(Path, sys.argv[1:])
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
sys.stdin.buffer.read()
deadline = time.monotonic() + WITHIN
while (left := [top for top in cgroups if top.is_dir()]) and time.monotonic() < deadline:
    for top in left:
        for path, _, _ in os.walk(top, topdown=False):
            try:
                Path(path).rmdir()
            except OSError:  # gone, or something in it is still ending
                break
    time.sleep(0.02)
try:
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:  # gone, or its owner lives
    sys.exit()
shutil.rmtree(folder, ignore_errors=True)
