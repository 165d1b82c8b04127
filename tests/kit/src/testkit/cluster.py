"""`make cluster`: keep a control plane running for people until Ctrl-C."""

import os
import sys
import time
from contextlib import ExitStack

from testkit.binaries import CONTROL_PLANE, BinariesMissing, provide
from testkit.console import StepFailed, console, step
from testkit.control_plane import ControlPlane
from testkit.processes import ProcessFailed, leave_on_signals


def main() -> int:
    """Run until a signal ends it with status 0; end with 1 if the control plane does not last so long."""
    leave_on_signals()
    try:
        provide(CONTROL_PLANE)
        with ExitStack() as stack:
            with step("Starting the control plane") as taken:
                plane = stack.enter_context(ControlPlane(controllers=True))
                taken.detail = plane.server
            console.print(
                f"\nexport KUBECONFIG={plane.kubeconfig}",
                f"export PATH={plane.folder / 'bin'}{os.pathsep}$PATH  # its kubectl and helm",
                f"\nLogs are in {plane.folder}. Ctrl-C ends it and removes everything.",
                sep="\n",
                markup=False,
            )
            while True:
                plane.check()
                time.sleep(0.5)
    except StepFailed:
        return 1
    except (BinariesMissing, ProcessFailed) as failure:
        print(failure, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
