"""A network of one's own, for programs that need an address which a machine has only in Azure.

Call `alone` first thing in a process of its own: before it has a thread.
"""

import ctypes
import fcntl
import os
import socket
import struct

# Source: unshare(2), netdevice(7).
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, SIOCSIFADDR = 0x8914, 0x8916
IFF_UP, IFF_RUNNING = 0x1, 0x40


def alone(*addresses: str) -> None:
    """Leave the network for a new one that has nothing but loopback, with these IPv4 addresses besides.

    Raises:
        OSError: That takes root, or a kernel that lets others have it.
    """
    kind = CLONE_NEWNET | (CLONE_NEWUSER if os.geteuid() else 0)
    if ctypes.CDLL(None, use_errno=True).unshare(kind):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        fcntl.ioctl(device, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP | IFF_RUNNING))
        for number, address in enumerate(addresses):
            name = f"lo:{number}".encode()
            request = struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(device, SIOCSIFADDR, request)
