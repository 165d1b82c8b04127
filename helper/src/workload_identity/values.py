"""Values: what flows, steps and answers are made of; compared by their fields, never changed.

They are what frozen dataclasses are, and type checkers take them for that. `dataclasses` itself imports
`inspect` and compiles several functions for each class: more than a tenth of what a first token costs.
"""

from __future__ import annotations

from types import MappingProxyType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar, Final, dataclass_transform
else:

    def dataclass_transform(**_):  # noqa: ANN003, ANN201 - as typing has it
        """Do nothing: this is for type checkers, and typing is no light import."""
        return lambda kind: kind


NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
"""The default of fields that are mappings."""


class _Hidden:
    """Marks a field that no repr shows."""


def hidden() -> Any:
    """Return what to assign to a field that may be a secret: its value is in no repr."""
    return _Hidden()


@dataclass_transform(frozen_default=True, field_specifiers=(hidden,))
class Value:
    """Takes the fields of a subclass, in their order or by name; what is assigned to one is its default.

    Defaults are shared, so they must not be changed either. A subclass has no subclasses.
    """

    __match_args__: ClassVar[tuple[str, ...]] = ()
    _hidden: ClassVar[frozenset[str]] = frozenset()
    _defaults: ClassVar[dict[str, object]] = {}

    def __init_subclass__(cls) -> None:
        names = cls.__match_args__ = tuple(cls.__annotations__)  # type: ignore[misc]  # mypy makes one too
        assigned = {name: vars(cls)[name] for name in names if name in vars(cls)}
        cls._hidden = frozenset(name for name, value in assigned.items() if isinstance(value, _Hidden))
        cls._defaults = {name: value for name, value in assigned.items() if name not in cls._hidden}
        for name in cls._hidden:
            delattr(cls, name)

    def __init__(self, *values: object, **named: object) -> None:
        names = self.__match_args__
        given = dict(zip(names, values, strict=False))
        fields = {**self._defaults, **given, **named}
        if len(values) > len(names) or given.keys() & named.keys() or fields.keys() ^ set(names):
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(names)}: each is wanted once")
        self.__dict__.update(fields)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed: {name}")

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__match_args__))

    def __repr__(self) -> str:
        shown = [name for name in self.__match_args__ if name not in self._hidden]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"
