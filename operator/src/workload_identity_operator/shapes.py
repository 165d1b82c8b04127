"""Reading JSON trees that anyone may have sent: right shapes come back, wrong ones are refused by name.

The API server has decoded a pod before we see it, but whoever reaches the port can post anything.
As in the API server's own decoder, null counts as absent.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from workload_identity_operator.errors import PodRefused, quoted

Json: TypeAlias = dict[str, Any]

_OBJECT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_BASE_URL: Final = re.compile(
    r"https://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+])(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
)
_LONGEST_OBJECT_NAME: Final = 253
# int() would also take blanks, "_" and any Unicode digit.
_INTEGER: Final = re.compile(r"([+-]?)([0-9]+)")
_MOST_DIGITS: Final = 19  # of 2**63
_KINDS: Final = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}


def mapping(value: object, where: str) -> Json:
    """Return the object; {} for null. Raises PodRefused for anything else."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise PodRefused(f"{where}: wanted an object, found {_kind(value)}")


def items(parent: Mapping[str, Any], key: str, where: str) -> Sequence[Any]:
    """Return the list under key; () for null or none. Raises PodRefused for anything else."""
    value = parent.get(key)
    if isinstance(value, list):
        return value
    if value is None:
        return ()
    raise PodRefused(f"{where}.{key}: wanted a list, found {_kind(value)}")


def objects(parent: Mapping[str, Any], key: str, where: str) -> list[Json]:
    """Return the list of objects under key; a null element is an empty object."""
    # Where an element is, is told only when it has the wrong shape: a pod has many of the right one.
    return [
        item if isinstance(item, dict) else mapping(item, f"{where}.{key}[{i}]")
        for i, item in enumerate(items(parent, key, where))
    ]


def text(parent: Mapping[str, Any], key: str, where: str) -> str:
    """Return the string under key; "" for null or none. Raises PodRefused for anything else."""
    value = parent.get(key)
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    # Cut: the key can be an annotation's, and so as long as the review.
    raise PodRefused(f"{where}.{key[:_LONGEST_OBJECT_NAME]}: wanted a string, found {_kind(value)}")


def texts(parent: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    """Return the map of strings under key; a null value is the empty string of a present key."""
    inside = mapping(parent.get(key), f"{where}.{key}")
    return {name: text(inside, name, f"{where}.{key}") for name in inside}


def flag(parent: Mapping[str, Any], key: str, where: str) -> bool:
    """Return the boolean under key; False for null or none. Raises PodRefused for anything else."""
    value = parent.get(key)
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    raise PodRefused(f"{where}.{key}: wanted a boolean, found {_kind(value)}")


def integer(written: str, bits: int, what: str, wanted: str) -> int:
    """Return the whole number that an annotation holds; leading zeros and a sign are fine.

    Raises:
        PodRefused: It is none, or does not fit so many bits (64 at most) with its sign; the message
            says `what` it is, quotes it, says which of the two is wrong and what is `wanted`.
    """
    found = _INTEGER.fullmatch(written)
    if found is None:
        raise PodRefused(f"{what}: {quoted(written)}: invalid syntax, not a whole number; {wanted}")
    sign, digits = found.groups()
    # However many zeros; a pattern that leaves them out takes quadratic time to fail.
    digits = digits.lstrip("0") or "0"
    most = 2 ** (bits - 1)
    if len(digits) > _MOST_DIGITS or not -most <= (number := int(sign + digits)) < most:
        raise PodRefused(f"{what}: {quoted(written)}: value out of range of {bits} bits; {wanted}")
    return number


def is_object_name(name: str) -> bool:
    """Whether Kubernetes accepts it as an object's name, a DNS-1123 subdomain.

    Asked of every name before it becomes part of a request's path.
    """
    return len(name) <= _LONGEST_OBJECT_NAME and _OBJECT_NAME.fullmatch(name) is not None


def is_base_url(url: str) -> bool:
    """Whether it is `https://HOST[:PORT][/PATH]`, without user, query or fragment."""
    try:
        # urlsplit() alone drops line ends and takes an empty "?" or "#" for none.
        return _BASE_URL.fullmatch(url) is not None and urlsplit(url).port != 0
    except ValueError:
        return False


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a number")
