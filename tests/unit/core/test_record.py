"""Records behave as the dataclasses that type checkers take them for."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from ramshelf.core.record import dataclass, replace
from ramshelf.core.store.kind import Kind


@dataclass(frozen=True, kw_only=True)
class Point:
    x: int
    y: int = 2


@dataclass(frozen=True, kw_only=True)
class Place(Point):
    name: str = "here"


@dataclass(frozen=True, kw_only=True)
class Shelf:
    books: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standard:
    x: int
    y: int = 2


def test_fields_are_keywords_and_have_their_defaults() -> None:
    point = Point(x=1)
    assert (point.x, point.y) == (1, 2)
    assert Point(y=3, x=1).y == 3


def test_what_a_factory_makes_is_each_records_own() -> None:
    one, other = Shelf(), Shelf()
    one.books.append("a")
    assert (one.books, other.books) == (["a"], [])
    assert Shelf(books=["b"]).books == ["b"]


@pytest.mark.parametrize("values", [{}, {"y": 1}, {"x": 1, "z": 1}, {"x": 1, "y": 2, "z": 3}])
def test_a_wrong_name_is_a_type_error(values: dict[str, Any]) -> None:
    for made in (Point, Standard):
        with pytest.raises(TypeError):
            made(**values)


def test_fields_are_not_given_by_place() -> None:
    with pytest.raises(TypeError):
        Point(1, 2)  # type: ignore[call-arg]


def test_a_record_is_frozen() -> None:
    point = Point(x=1)
    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del point.x
    assert point.x == 1


def test_equality_hash_and_text_are_those_of_the_values() -> None:
    assert Point(x=1) == Point(y=2, x=1)
    assert Point(x=1) != Point(x=2)
    assert {Point(x=1), Point(x=1), Point(x=2)} == {Point(x=2), Point(x=1)}
    assert repr(Point(x=1)) == repr(Standard(x=1)).replace("Standard", "Point")
    other: object = Standard(x=1)
    assert Point(x=1) != other


def test_a_record_inherits_fields() -> None:
    place = Place(x=1, name="there")
    assert (place.x, place.y, place.name) == (1, 2, "there")
    point: object = Point(x=1)
    assert Place(x=1) != point
    assert repr(place) == "Place(x=1, y=2, name='there')"


def test_another_with_other_values() -> None:
    assert replace(Place(x=1, name="there"), x=5) == Place(x=5, name="there")
    assert replace(Standard(x=1), y=7) == Standard(x=1, y=7)
    with pytest.raises(TypeError):
        replace(Point(x=1), z=1)  # type: ignore[call-arg]


def test_records_are_copied_and_pickled() -> None:
    point = Point(x=1)
    for other in (
        copy.copy(point),
        copy.deepcopy(point),
        pickle.loads(pickle.dumps(point)),  # noqa: S301
    ):
        assert other == point


def test_a_record_is_matched_by_its_class() -> None:
    match Place(x=4):
        case Place(x=x, name="here"):
            assert x == 4
        case _:
            pytest.fail("it is a Place")


def test_nothing_but_a_frozen_record_is_made() -> None:
    with pytest.raises(TypeError):
        dataclass(frozen=False, kw_only=True)(Point)


def test_a_kind_is_found_by_its_value() -> None:
    assert [kind.value for kind in Kind] == ["swap", "disk", "dax", "ram"]
    for kind in Kind:
        assert Kind(kind.value) is kind
        assert pickle.loads(pickle.dumps(kind)) is kind  # noqa: S301
        assert copy.deepcopy({kind: kind}) == {kind: kind}
    assert (Kind.SWAP.name, str(Kind.DAX), repr(Kind.RAM)) == (
        "SWAP",
        "Kind.DAX",
        "<Kind.RAM: 'ram'>",
    )
    wrong: list[Any] = ["tape", None, []]
    for value in wrong:
        with pytest.raises(ValueError, match="is not a valid Kind"):
            Kind(value)
