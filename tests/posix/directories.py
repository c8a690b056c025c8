"""Directories: listing, moving, and what is refused."""

import ctypes
import os
import stat
from pathlib import Path

from tests.posix.probe import check, file, probe, refused
from tests.posix.system import Directory, call, in_child, rename

DETAIL = "mount/test_directories.py"


@probe("telldir and seekdir: back to where one was", also=DETAIL)
def seek() -> None:
    for number in range(300):
        os.mknod(f"{number}")
    stream = Directory(".")
    for _ in range(100):
        stream.read()
    place = stream.tell()
    rest = stream.rest()
    for number in range(0, 300, 7):
        os.unlink(f"{number}")
    stream.seek(place)
    again = stream.rest()
    stream.close()
    gone = {b"%d" % number for number in range(0, 300, 7)}
    check([name for name in rest if name not in gone] == [name for name in again if name not in gone], "elsewhere")


@probe("What is there throughout is listed once while others come and go", also=DETAIL)
def listing_while_changing() -> None:
    long = "n" * 200  # so that a few hundred names do not fit into one getdents
    staying = {f"stays-{number}-{long}" for number in range(300)}
    going = [f"goes-{number}-{long}" for number in range(300)]
    for name in (*staying, *going):
        os.mknod(name)
    seen = []
    with os.scandir() as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number < 300:
                os.unlink(going[number])
                os.mknod(f"new-{number}-{long}")
    check(len(seen) == len(set(seen)), "twice")
    check(staying <= set(seen), "one is left out")


@probe("rewinddir shows what is new")
def rewind() -> None:
    stream = Directory(".")
    check(stream.rest() == [], "not empty")
    file("new")
    stream.rewind()
    check(stream.rest() == [b"new"], "not shown")


@probe("Listings tell the type (d_type) and st_ino (d_ino)")
def types_in_listings() -> None:
    os.mkdir("directory")
    os.symlink("x", "link")
    file("file")
    types = {entry.name: (entry.is_dir(), entry.is_symlink()) for entry in os.scandir()}
    check(types == {"directory": (True, False), "link": (False, True), "file": (False, False)}, "other types")
    check(all(entry.inode() == os.lstat(entry.name).st_ino for entry in os.scandir()), "other numbers")


@probe("st_nlink of a directory: 2 and one for each below")
def links_of_directories() -> None:
    os.mkdir("one")
    os.mkdir("one/two")
    os.mkdir("one/three")
    os.rename("one/three", "three")
    check((os.stat("one").st_nlink, os.stat("three").st_nlink) == (3, 2), f"{os.stat('one').st_nlink} with one below")


@probe("ENOTEMPTY: rmdir, rename over", also="mount/test_semantics.py")
def not_empty() -> None:
    os.makedirs("full/below")
    os.mkdir("empty")
    check(refused(os.rmdir, "full") == "ENOTEMPTY", "removed")
    check(refused(os.rename, "empty", "full") in ("ENOTEMPTY", "EEXIST"), "replaced")


@probe("EINVAL: a directory into itself", also=DETAIL)
def loop_rule() -> None:
    os.makedirs("one/two/three")
    check(refused(os.rename, "one", "one/two/three/four") == "EINVAL", "moved")
    check(refused(rename, "one", "one/two", 2) == "EINVAL", "exchanged")


@probe("EINVAL, ENOTEMPTY, EBUSY: rmdir of . and ..; rename of them")
def dots() -> None:
    os.makedirs("one/two")
    answers = [refused(os.rmdir, "one/."), refused(os.rmdir, "one/two/.."), refused(os.rename, "one/.", "x")]
    check(answers == ["EINVAL", "ENOTEMPTY", "EBUSY"], ", ".join(answers))


@probe("EBUSY: rmdir and rename of what something is mounted on", root=True)
def busy() -> None:
    os.mkdir("point")

    def attempt() -> tuple[str, str]:
        call("unshare", 0x20000)  # CLONE_NEWNS: nobody else sees this mount
        call("mount", b"none", b"/", None, ctypes.c_ulong(0x44000), None)  # MS_REC | MS_PRIVATE
        call("mount", b"none", b"point", b"tmpfs", ctypes.c_ulong(0), None)
        return refused(os.rmdir, "point"), refused(os.rename, "point", "elsewhere")

    check(in_child(attempt) == ("EBUSY", "EBUSY"), "done")


@probe("EXDEV: rename and link to another filesystem")
def other_filesystem() -> None:
    file("file")
    elsewhere = f"/dev/shm/no-such-name-{os.getpid()}"
    check(refused(os.rename, "file", elsewhere) == refused(os.link, "file", elsewhere) == "EXDEV", "moved")


@probe("EISDIR, ENOTDIR, EPERM: unlink, rmdir, link of the wrong kind", also="mount/test_semantics.py")
def wrong_kinds() -> None:
    os.mkdir("directory")
    file("file")
    answers = [
        refused(os.unlink, "directory"),
        refused(os.rmdir, "file"),
        refused(os.link, "directory", "x"),
        refused(os.rename, "directory", "file"),
        refused(os.rename, "file", "directory"),
        refused(os.stat, "file/x"),
    ]
    check(answers == ["EISDIR", "ENOTDIR", "EPERM", "ENOTDIR", "EISDIR", "ENOTDIR"], ", ".join(answers))


@probe("The working directory may be removed; nothing is made in it then")
def removed_working_directory() -> None:
    os.mkdir("here")

    def attempt() -> list[str]:
        os.chdir("here")
        os.rmdir("../here")
        return [refused(os.open, "x", os.O_CREAT | os.O_WRONLY), refused(os.getcwd), refused(os.listdir)]

    check(in_child(attempt) == ["ENOENT", "ENOENT", "done"], "something else")


@probe("A directory is renamed with files open and a process working in it", also=DETAIL)
def moved_working_directory() -> None:
    os.makedirs("old/below")
    top = os.getcwd()
    with open("old/below/file", "w+") as opened:
        os.chdir("old/below")
        try:
            os.rename(f"{top}/old", f"{top}/new")
            opened.write("after")
            opened.flush()
            check(os.getcwd() == f"{top}/new/below" and Path("file").read_text() == "after", "lost")
        finally:
            os.chdir(top)


@probe("Trees deeper than PATH_MAX", also=DETAIL)
def deep_trees() -> None:
    name, depth = "d" * 200, 40
    fd = os.open(".", os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        fd, above = os.open(name, os.O_RDONLY, dir_fd=fd), fd
        os.close(above)
    path = "/".join([name] * depth)
    answer = refused(os.stat, path)
    for _ in range(depth):
        above = os.open("..", os.O_RDONLY, dir_fd=fd)
        os.rmdir(name, dir_fd=above)
        os.close(fd)
        fd = above
    os.close(fd)
    check(answer == "ENAMETOOLONG", answer)


@probe("ELOOP: symlinks in a circle")
def circle() -> None:
    os.symlink("two", "one")
    os.symlink("one", "two")
    check(refused(os.stat, "one") == "ELOOP", "found")


@probe("The root of what is new has its place: .. of a moved directory")
def parent_of_the_moved() -> None:
    os.makedirs("a/moving")
    os.mkdir("b")
    os.rename("a/moving", "b/moving")
    check(os.stat("b/moving/..").st_ino == os.stat("b").st_ino, "the old parent")
    listed = {entry.name for entry in os.scandir("b/moving")}
    check(listed == set() and stat.S_ISDIR(os.stat("b/moving").st_mode), "not empty")
