"""Value: the base of small immutable objects with named fields, such as the events and the settings.

It is used as a frozen dataclass is, and type checkers take it for one. But ``dataclasses`` generates and compiles six
methods for each class, which takes more than half a millisecond: for the forty classes of a client, a third of its
import. Here all classes share the methods below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from dataclasses import Field
    from inspect import Signature


class Hidden(str):
    """A secret: a string like any other, but its repr, also within a list or a dictionary, is ``'…'``. Error reporters
    record the repr of each local variable of each frame of a traceback.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


class HiddenBytes(bytes):
    """The same for bytes."""

    def __repr__(self) -> str:
        return "b'…'"


def hidden(value: Any) -> Any:
    """Return a string or bytes as a secret, and any other value as it is, such as None or a path."""
    if isinstance(value, str):
        return Hidden(value)
    return HiddenBytes(value) if isinstance(value, bytes) else value


def hide(mapping: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    """Return a mapping with the values of some names as secrets."""
    return {name: hidden(value) if name in names else value for name, value in mapping.items()}


@dataclass_transform(frozen_default=True)
class Value:
    """The fields are the annotated names of a class; a value that stands there is the default. ``_hidden`` names those
    that a repr does not show. :meth:`__post_init__` may check the fields.
    """

    __match_args__: ClassVar[tuple[str, ...]] = ()
    _hidden: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
        __signature__: ClassVar[Signature]
    else:

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            cls, names = type(self), self.__match_args__
            if cls._hidden:
                secret = tuple(name in cls._hidden for name in names) + (False,) * len(args)
                args = tuple(hidden(value) if hide_it else value for value, hide_it in zip(args, secret, strict=False))
                kwargs = hide(kwargs, cls._hidden)
            given = dict(zip(names, args, strict=False))
            values = {name: getattr(cls, name) for name in names if hasattr(cls, name)} | given | kwargs
            if len(args) > len(names) or values.keys() != set(names) or not given.keys().isdisjoint(kwargs):
                cls.__signature__.bind(*args, **kwargs)  # raises the TypeError that says what is wrong
            for name in names:
                object.__setattr__(self, name, values[name])
            self.__post_init__()

    def __init_subclass__(cls) -> None:
        own = (name for name, kind in cls.__annotations__.items() if not kind.startswith("ClassVar"))
        cls.__match_args__ = (*cls.__match_args__, *own)  # type: ignore[misc]  # which mypy takes for final

    def __post_init__(self) -> None:
        """Check the fields."""

    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__match_args__ if name not in self._hidden)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __setattr__(self, name: str, value: object) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")


def _annotation(cls: type[Value], name: str) -> str:
    annotation: str = next(base.__annotations__[name] for base in cls.__mro__ if name in base.__annotations__)
    return annotation


class _OfDataclass:
    """An attribute by which ``dataclasses`` and ``pprint`` know a dataclass, of one that is made when they look."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type[Value]) -> Any:
        from dataclasses import field, make_dataclass

        def described(name: str) -> tuple[str, Any, Any]:
            default: Any = {"default_factory": lambda: getattr(owner, name)} if hasattr(owner, name) else {}
            return name, _annotation(owner, name), field(repr=name not in not_shown, **default)

        not_shown = owner._hidden  # noqa: SLF001 - this is a part of Value
        fields = [described(name) for name in owner.__match_args__]
        return getattr(make_dataclass(owner.__name__, fields, frozen=True), self._name)


class _Signature:
    """For ``inspect.signature()`` and ``help()``."""

    def __get__(self, instance: object, owner: type[Value]) -> Signature:
        from inspect import Parameter, Signature

        def described(name: str) -> Parameter:
            default, annotation = getattr(owner, name, Parameter.empty), _annotation(owner, name)
            return Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)

        return Signature([described(name) for name in owner.__match_args__])


if not TYPE_CHECKING:
    Value.__dataclass_fields__ = _OfDataclass("__dataclass_fields__")
    Value.__dataclass_params__ = _OfDataclass("__dataclass_params__")
    Value.__signature__ = _Signature()
