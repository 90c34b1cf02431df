"""Values: small immutable objects with named fields."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import pprint
from typing import ClassVar

import pytest

from mqtt_token_client.value import Value


class Point(Value):
    x: int
    y: int = 2
    label: str | None = None

    kind: ClassVar[str] = "a point"
    _hidden = ("label",)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x must not be negative")


class Corner(Point):
    sharp: bool = True


def test_fields_are_given_by_position_or_by_name_and_have_defaults() -> None:
    for point in (Point(1, 3), Point(1, y=3), Point(y=3, x=1)):
        assert (point.x, point.y, point.label, point.kind) == (1, 3, None, "a point")


def test_a_subclass_adds_its_fields_to_those_of_its_base() -> None:
    corner = Corner(1, sharp=False)
    assert (corner.x, corner.y, corner.sharp) == (1, 2, False)


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((1, 2, "a", 4), {}, "too many positional arguments"),
        ((1,), {"x": 1}, "multiple values for argument 'x'"),
        ((1,), {"z": 1}, "got an unexpected keyword argument 'z'"),
    ],
)
def test_wrong_arguments_are_a_type_error_as_of_any_function(
    args: tuple[object, ...], kwargs: dict[str, object], problem: str
) -> None:
    with pytest.raises(TypeError, match=problem):
        Point(*args, **kwargs)  # type: ignore[arg-type]


def test_the_fields_are_checked() -> None:
    with pytest.raises(ValueError, match="x must not be negative"):
        Point(-1)


def test_a_value_is_equal_to_one_of_the_same_class_with_the_same_fields() -> None:
    assert Point(1) == Point(1, 2)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert Point(1) != Point(1, 2, "a")
    assert Point(1) != Corner(1)
    assert Point(1) != (1, 2, None)


def test_a_value_cannot_be_changed() -> None:
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    assert point == Point(1)


def test_a_hidden_field_is_not_shown() -> None:
    assert repr(Corner(1, label="secret")) == "Corner(x=1, y=2, sharp=True)"


def test_a_value_is_matched_by_its_fields() -> None:
    match Point(1, 3):
        case Point(x, y=3):
            assert x == 1
        case _:
            pytest.fail("not matched")


def test_a_value_can_be_copied_and_pickled() -> None:
    corner = Corner(1, label="a", sharp=False)
    for other in (copy.copy(corner), copy.deepcopy(corner), pickle.loads(pickle.dumps(corner))):
        assert other == corner


def test_the_functions_of_dataclasses_accept_a_value() -> None:
    corner = Corner(1, sharp=False)
    assert dataclasses.asdict(corner) == {"x": 1, "y": 2, "label": None, "sharp": False}
    assert dataclasses.replace(corner, y=5) == Corner(1, 5, sharp=False)
    assert [field.name for field in dataclasses.fields(Point)] == ["x", "y", "label"]


def test_pprint_shows_the_repr_without_hidden_fields_at_any_width() -> None:
    assert pprint.pformat(Corner(1, label="secret"), width=1) == "Corner(x=1, y=2, sharp=True)"
    assert pprint.pformat([Corner(1), Point(2)], width=1) == "[Corner(x=1, y=2, sharp=True),\n Point(x=2, y=2)]"


def test_the_fields_say_which_of_them_are_hidden() -> None:
    shown = {field.name: field.repr for field in dataclasses.fields(Corner)}
    assert shown == {"x": True, "y": True, "label": False, "sharp": True}


def test_the_signature_names_the_fields_their_types_and_defaults() -> None:
    assert str(inspect.signature(Point)) == "(x: 'int', y: 'int' = 2, label: 'str | None' = None)"
