"""Branches: what each is called, which one it was made from, and where it begins.

A branch has an id for life, which names its journal, its lock and its refs, and a name, which can change. One small
file in the directory of its journal holds both. The first branch, `main`, has no such file and no parent.

Knows files only; never trees, journals' contents or mounts.

B1. A branch is there when its file is, and the file is written last, by a rename. Until it is durable, its parent's
    journal has the record that made the branch; a file that is damaged then is as good as none.
B2. Names are unique among the branches of one parent that are not deleted. Whoever owns the parent (its lock) makes
    and renames them; whoever owns the branch itself changes the rest.
B3. A deleted branch keeps its journal and its refs until the next collection of garbage, and can be brought back.
"""

import os
import secrets
from typing import Final

import msgspec
import xxhash

from helios_fs.errors import CorruptObject, HeliosError, InvalidArgument, NameTooLong, NoSuchEntry
from helios_fs.objects.snapshot import MAIN_BRANCH, Head
from helios_fs.store import files

FILE_NAME: Final = "branch"
_NEW_SUFFIX: Final = ".new"
_MAGIC: Final = b"HELBRAN\0"
_CHECK_BYTES: Final = 8
MAX_NAME_BYTES: Final = 255


class BranchInfo(msgspec.Struct, array_like=True, frozen=True):
    """What a branch's file says."""

    id: str
    parent: str
    """Id of the branch that it was made from."""
    name: str
    """Its own part of the name; bytes that are not UTF-8 as surrogate escapes are refused, so this is plain text."""
    base: Head
    """Tree, journal position and epoch at which its journal begins; until its first seal this is its head."""
    fork_lsn: int
    """Journal position behind which its own records begin; those before it are its parent's."""
    fork_epoch: int
    """The epoch of its parent that ended with the fork: snapshots of earlier epochs are part of its history."""
    snapshot: str
    """Id of the snapshot that is the state in which it began; it belongs to this branch."""
    created_ns: int
    user: str = ""
    host: str = ""
    kept_lsn: int = 0
    """Everything before this position of its journal is held by another branch too: it was merged."""
    deleted_ns: int = 0
    """When it was deleted, or 0."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(BranchInfo).decode


def check_name(name: str) -> None:
    """Refuse what cannot name a branch (one part of it, between slashes). Raises InvalidArgument, NameTooLong."""
    try:
        raw = name.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument("a branch name must be UTF-8") from error
    if len(raw) > MAX_NAME_BYTES:
        raise NameTooLong(f"a branch name may have {MAX_NAME_BYTES} bytes; this one has {len(raw)}")
    if not name:
        raise InvalidArgument("a branch name must not be empty, nor have an empty part")
    if "/" in name or any(letter < " " for letter in name):
        raise InvalidArgument(f"'{name!r}' is no branch name: it has a slash or a control character")
    if name.startswith("."):
        raise InvalidArgument(f"'{name}' is no branch name: it must not begin with a dot")
    if name.startswith(("-", "~")) or ":" in name:
        raise InvalidArgument(f"'{name}' is no branch name: it must not begin with '-' or '~', nor contain ':'")
    if name == MAIN_BRANCH:
        raise InvalidArgument(f"'{MAIN_BRANCH}' is the name of the first branch; choose another")


def new_branch_id() -> str:
    """Return an id that no branch has had."""
    return "b" + secrets.token_hex(8)


def journal_directory(store_path: str, branch: str) -> str:
    """Return where a branch's journal, and its file, lie."""
    return os.path.join(store_path, "journals", branch)


class Branches:
    """The branches of a store, as their files say. Every call reads the files again: other processes change them."""

    def __init__(self, store_path: str) -> None:
        self._store_path = store_path

    def find(self, branch: str) -> BranchInfo | None:
        """Return what is known of the branch with this id, or None; `main` has no file. Raises CorruptObject."""
        path = os.path.join(journal_directory(self._store_path, branch), FILE_NAME)
        try:
            fd = files.open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            raw = files.read_at(fd, 1 << 16, 0)
        finally:
            os.close(fd)
        return decode_branch(raw, path)

    def get(self, branch: str) -> BranchInfo:
        """As `find`. Raises NoSuchEntry."""
        info = self.find(branch)
        if info is None:
            raise NoSuchEntry(f"there is no branch with the id {branch}")
        return info

    def all(self, deleted: bool = False) -> list[BranchInfo]:
        """Return every branch but `main`, oldest first; the deleted ones too where asked."""
        found = []
        for name in os.listdir(os.path.join(self._store_path, "journals")):
            info = self.find(name) if name != MAIN_BRANCH else None
            if info is not None and (deleted or not info.deleted_ns):
                found.append(info)
        return sorted(found, key=lambda info: (info.created_ns, info.id))

    def children(self, branch: str) -> list[BranchInfo]:
        """Return the branches made from this one that are not deleted, oldest first."""
        return [info for info in self.all() if info.parent == branch]

    def lineage(self, branch: str) -> list[str]:
        """Return the ids of a branch and of those that it descends from, `main` last. Raises NoSuchEntry."""
        found = [branch]
        while found[-1] != MAIN_BRANCH:
            found.append(self.get(found[-1]).parent)
        return found

    def name_of(self, branch: str) -> str:
        """Return a branch's whole name: `main`, `a`, `a/b`. Raises NoSuchEntry."""
        parts: list[str] = []
        while branch != MAIN_BRANCH:
            info = self.get(branch)
            parts.append(info.name)
            branch = info.parent
        return "/".join(reversed(parts)) or MAIN_BRANCH

    def called(self, branch: str) -> str:
        """Return a branch's whole name for a message: its id where no name can be had."""
        try:
            return self.name_of(branch)
        except HeliosError:
            return branch

    def by_name(self, name: str) -> str:
        """Return the id of the branch with this whole name. Raises NoSuchEntry, InvalidArgument."""
        if name == MAIN_BRANCH:
            return MAIN_BRANCH
        here = MAIN_BRANCH
        known = self.all()
        for part in name.split("/"):
            check_name(part)
            following = next((info for info in known if info.parent == here and info.name == part), None)
            if following is None:
                raise NoSuchEntry(f"there is no branch {name} (`helios branch` lists them)")
            here = following.id
        return here

    def write(self, info: BranchInfo, durably: bool = True) -> None:
        """Make this what the branch's file says, the whole of it or nothing; its directory is there already.

        Durable on return, unless not `durably`: then what was there before may be back after a power cut.
        """
        directory = journal_directory(self._store_path, info.id)
        path = os.path.join(directory, FILE_NAME)
        fd = files.open_file(path + _NEW_SUFFIX, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            files.write_at(fd, encode_branch(info), 0)
            if durably:
                files.sync_data(fd)
        finally:
            os.close(fd)
        files.replace(path + _NEW_SUFFIX, path)
        if durably:
            files.sync_directory(directory)


def encode_branch(info: BranchInfo) -> bytes:
    """Return the bytes of a branch's file: a magic, a checksum of what follows, the fields as MessagePack."""
    body = _encode(info)
    return _MAGIC + xxhash.xxh3_64_intdigest(body).to_bytes(_CHECK_BYTES, "little") + body


def decode_branch(raw: bytes, path: str) -> BranchInfo:
    """Return what a branch's file says. Raises CorruptObject."""
    start = len(_MAGIC) + _CHECK_BYTES
    body = raw[start:]
    check = xxhash.xxh3_64_intdigest(body).to_bytes(_CHECK_BYTES, "little")
    if raw[:start] != _MAGIC + check:
        raise CorruptObject(f"{path}: the branch's file is damaged")
    try:
        return _decode(body)
    except (msgspec.MsgspecError, ValueError) as error:
        raise CorruptObject(f"{path}: the branch's file cannot be decoded: {error}") from error
