"""One operator for all that is looked at here."""

from collections.abc import Iterator

import pytest

from testkit.binaries import provide
from testkit.day import Day, lived


@pytest.fixture(scope="package")
def day(pytestconfig: pytest.Config) -> Iterator[Day]:
    """An operator to which everything has happened; looking at it changes nothing."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide()
    with lived() as found:
        yield found
