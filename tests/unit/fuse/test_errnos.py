"""Every error that is raised on purpose has an errno, and none that would surprise."""

import errno
import inspect

import pytest

from helios_fs import errors
from helios_fs.errors import HeliosError
from helios_fs.fuse.errnos import ERRNO

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, HeliosError) and found is not HeliosError
]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_class_is_in_the_table(error: type[HeliosError]) -> None:
    assert ERRNO[error] in errno.errorcode


def test_the_table_has_nothing_else() -> None:
    assert set(ERRNO) == set(CLASSES)
    assert len(CLASSES) > 20


def test_the_tree_of_errors_is_flat() -> None:
    """The table goes by the exact class: a class below another would be missed."""
    assert [error for error in CLASSES if error.__bases__ != (HeliosError,)] == []


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (errors.NoSuchEntry, errno.ENOENT),
        (errors.EntryExists, errno.EEXIST),
        (errors.DirectoryNotEmpty, errno.ENOTEMPTY),
        (errors.ReadOnly, errno.EROFS),
        (errors.CrossesView, errno.EXDEV),
        (errors.StoreFull, errno.ENOSPC),
        (errors.CorruptObject, errno.EIO),
        (errors.NoSuchAttribute, errno.ENODATA),
        (errors.FileTooLarge, errno.EFBIG),
    ],
)
def test_what_programs_rely_on(error: type[HeliosError], number: int) -> None:
    assert ERRNO[error] == number


def test_damage_is_never_a_wrong_answer() -> None:
    damage = {errors.CorruptObject, errors.ObjectMissing, errors.StoreFault, errors.ColdObject}
    assert {ERRNO[error] for error in damage} == {errno.EIO}
