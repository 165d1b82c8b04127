"""Make sure that Azurite is there, and tell where."""

import sys

from testkit.azurite import AzuriteMissing, provide

if __name__ == "__main__":
    try:
        print(provide())
    except AzuriteMissing as missing:
        sys.exit(str(missing))
