"""Names of a module that are loaded when they are first used."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def names(
    module: dict[str, object], homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a module.

    Args:
        module: Its globals.
        homes: By public name, the module of this package that has it: "tokens", or "workload:Name" where it
            has another name there.
    """

    def load(name: str) -> object:
        home, _, original = homes.get(name, "").partition(":")
        if not home:
            raise AttributeError(f"module {module['__name__']!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415 - only who uses a name pays for its module

        value = module[name] = getattr(import_module(f"workload_identity.{home}"), original or name)
        return value

    return load, lambda: sorted({*module, *homes})
