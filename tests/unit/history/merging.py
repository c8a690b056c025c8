"""Two branches of one store for tests of merging, and what makes a tree sound."""

import stat
from collections import Counter

from helios_fs.history import branching
from helios_fs.history.branching import finish_fork
from helios_fs.history.merge import Merged, merge_trees
from helios_fs.history.merge_text import Favour
from helios_fs.objects.entry import Entry, decode_entry
from helios_fs.store import maps
from helios_fs.store.content import read_content
from helios_fs.store.objects import Objects
from helios_fs.worktree.index import linked_entry
from tests.model.harness import Branch
from tests.unit.worktree.trees import seal

Shown = dict[str, tuple[object, ...]]


def head(branch: Branch) -> bytes:
    """Seal everything and return the tree."""
    seal(branch)
    return branch.store.head(branch.name).tree


def fork(branch: Branch, name: str) -> Branch:
    """Make a branch of the present state and open it."""
    made, position = branching.fork(branch.worktree, name, "somebody", "here")
    branch.worktree.journal.sync()
    finish_fork(branch.store, branch.worktree.journal, made, position)
    return Branch(branch.path, made.snapshot.branch)


def merged(base: bytes, ours: Branch, theirs: Branch, favour: Favour = None) -> Merged:
    """Merge two branches' present states; what comes of it is published and sound."""
    one, other = head(ours), head(theirs)
    with ours.store.writer() as writer:
        result = merge_trees(
            ours.store.objects,
            writer,
            base,
            one,
            other,
            favour,
            take_ino=ours.worktree.take_ino,
            labels=("main", "agent"),
            now_ns=77,
        )
        writer.publish([], ours.name, ours.fence)
    if result.tree_id:
        check_tree(ours.store.objects, result.tree_id)
    return result


def check_tree(objects: Objects, tree_id: bytes) -> None:
    """Numbers are unique, counts and sizes true, the link table holds what names refer to and no other."""
    tree = objects.tree(tree_id)
    refers: Counter[int] = Counter()
    seen = {tree.root.ino}
    pending = [tree.root]
    while pending:
        here = pending.pop()
        names = directories = 0
        for _, value in maps.scan(objects, here.content):
            names += 1
            entry = decode_entry(value)
            if isinstance(entry, int):
                refers[entry] += 1
                continue
            assert entry.ino not in seen, f"inode {entry.ino} twice"
            seen.add(entry.ino)
            if entry.is_directory:
                directories += 1
                pending.append(entry)
            else:
                assert entry.nlink == 1
                check_content(objects, entry)
        assert (here.size, here.nlink) == (names, 2 + directories)
    table = {}
    for key, value in maps.scan(objects, tree.links):
        entry = decode_entry(value)
        assert isinstance(entry, Entry)
        assert int.from_bytes(key, "big") == entry.ino
        table[entry.ino] = entry.nlink
        check_content(objects, entry)
    assert table == dict(refers)
    assert not seen & refers.keys()


def check_content(objects: Objects, entry: Entry) -> None:
    if entry.is_file:
        assert len(read_content(objects, entry.content, entry.size, 0, entry.size)) == entry.size
        assert entry.allocated <= entry.size


def shown(objects: Objects, tree_id: bytes) -> Shown:
    """What a tree shows: path -> type, permissions, owner, number of names, content, attributes."""
    tree = objects.tree(tree_id)
    rows: Shown = {}
    pending = [("", tree.root)]
    while pending:
        path, here = pending.pop()
        content = here.content
        if here.is_file:
            content = read_content(objects, here.content, here.size, 0, here.size)
        elif here.is_directory:
            content = b""
            for key, value in maps.scan(objects, here.content):
                entry = decode_entry(value)
                if isinstance(entry, int):
                    entry = linked_entry(objects, tree.links, entry)
                pending.append((f"{path}/{key[8:].decode()}", entry))
        names = 0 if here.is_directory else here.nlink
        rows[path] = (
            stat.S_IFMT(here.mode),
            stat.S_IMODE(here.mode),
            here.uid,
            names,
            content,
            tuple(sorted((here.xattrs or {}).items())),
        )
    return rows
