"""Values, which are what frozen dataclasses are."""

import copy
import pickle
from typing import Any

import pytest

from workload_identity.steps import Ask, Content, Now, Read, Response, Wait
from workload_identity.values import Value, hidden


class Pair(Value):
    """A value of this module, so that it can be pickled."""

    shown: str
    secret: str = hidden()
    more: int = 1


def test_fields_in_order_by_name_and_by_default() -> None:
    """They are taken as a function takes its arguments."""
    pair = Pair("a", secret="b")

    assert (pair.shown, pair.secret, pair.more) == ("a", "b", 1)
    assert Pair("a", "b", 2) == Pair(more=2, shown="a", secret="b")
    match Read("/file", folder="/"):
        case Read(path, most, folder):
            assert (path, most, folder) == ("/file", 1 << 20, "/")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), {"shown": "a"}),  # lacks the secret
        (("a", "b", 3, 4), {}),
        (("a", "b"), {"shown": "c"}),
        (("a", "b"), {"other": 1}),
    ],
)
def test_fields_are_wanted_once(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Too few, too many, twice, or unknown: that is a mistake of ours, told at once."""
    with pytest.raises(TypeError, match="Pair has the fields shown, secret, more"):
        Pair(*values, **named)


def test_equal_by_fields_and_kind() -> None:
    """So they can be compared, and keys of a dict."""
    assert Pair("a", "b") == Pair("a", "b") != Pair("a", "c")
    assert Wait(1, 2) != Pair("a", "b")
    assert Pair("a", "b") != {"shown": "a", "secret": "b", "more": 1}
    assert {Now(), Now(), Pair("a", "b"), Pair("a", "b")} == {Now(), Pair("a", "b")}


def test_never_changed() -> None:
    """A flow may hand them on."""
    pair = Pair("a", "b")

    with pytest.raises(AttributeError, match="Pair cannot be changed: shown"):
        pair.shown = "c"  # type: ignore[misc]  # what is tested
    with pytest.raises(AttributeError, match="Pair cannot be changed: shown"):
        del pair.shown
    assert pair == Pair("a", "b")


def test_secrets_in_no_repr() -> None:
    """Fields that may hold one are left out."""
    assert repr(Pair("a", "a-secret")) == "Pair(shown='a', more=1)"
    assert repr(Content(b"a-secret", steady=True)) == "Content(steady=True)"
    assert "a-secret" not in repr(Response(200, "OK", {"a": "a-secret"}, b"a-secret", None))  # type: ignore[arg-type]
    assert "a-secret" not in repr(Ask("a-secret", ()))


def test_copied_and_pickled() -> None:
    """As anything that holds data."""
    pair = Pair("a", "b", 3)

    assert copy.copy(pair) == copy.deepcopy(pair) == pickle.loads(pickle.dumps(pair)) == pair  # noqa: S301 - ours
