"""What a mount answers otherwise than ext4 does, why, and what programs do then."""

from typing import NamedTuple

from tests.posix.probe import PROGRAMS


class Known(NamedTuple):
    """One difference from ext4."""

    answer: str
    reason: str
    programs: str
    tested: str = PROGRAMS


_NO_REQUEST = "pyfuse3 has no such request"
_FALLOCATE = Known(
    "no: EOPNOTSUPP",
    _NO_REQUEST,
    "posix_fallocate of the C library (PostgreSQL, SQLite, qemu-img) writes a zero into every 4 KiB instead:"
    " right, but no promise of room; fallocate(1) says that it cannot, `fallocate --posix` works",
)
_PUNCH = Known(
    "no: EOPNOTSUPP",
    _NO_REQUEST,
    "the bytes stay as they are and the program is told; databases and images keep the room, or write zeros",
)
_ACL = Known(
    "no: EOPNOTSUPP",
    "with pyfuse3 the kernel would obey them (FUSE_POSIX_ACL) but take the umask from what a directory's default list"
    " gives (no FUSE_DONT_MASK), so that a group could not write where ext4 lets it; better none than wrong ones",
    'setfacl says "Operation not supported", so do cp -a (exit 1), rsync -A (23) and tar --acls of files that'
    " have one; all the rest is copied",
    "mount/test_permissions.py",
)
_NOATIME = Known(
    "noatime",
    "a read is no change: it would cost a journal record; `-o relatime` changes nothing",
    "as with any noatime mount: mutt, tmpreaper and find -amin see the time that somebody set",
    "mount/test_attributes.py",
)
_SET_GID_MARK = Known(
    "set-gid kept",
    "the kernel's FUSE takes set-gid away only together with execution by the group, so on every FUSE mount; where the"
    " daemon does it (O_TRUNC, O_WRONLY) it follows the same rule",
    "such a bit gives nobody a right: nothing runs with that group",
    "posix/permissions.py",
)

KNOWN: dict[str, Known] = {
    "o_tmpfile": Known(
        "no: EOPNOTSUPP", _NO_REQUEST, "tmpfile(3), Python's tempfile and others make a named file and unlink it"
    ),
    "o_direct_unaligned": Known(
        "yes",
        "no block device stands behind it that would need alignment",
        "more works than on ext4",
        "mount/test_direct_writes.py",
    ),
    "largest_size": Known(
        "2^62", "no format limit below that of the system call", "nothing", "mount/test_semantics.py"
    ),
    "get_flags": Known("no: ENOTTY", "pyfuse3 has no ioctl", "lsattr says so; cp -a, rsync and tar do not ask"),
    "immutable": Known("no: ENOTTY", "pyfuse3 has no ioctl", "chattr says so, and changes nothing"),
    "allocate": _FALLOCATE,
    "allocate_keeping_size": _FALLOCATE,
    "punch_hole": _PUNCH,
    "zero_range": _PUNCH,
    "collapse_range": _PUNCH,
    "insert_range": _PUNCH,
    "memory_removal": _PUNCH,
    "seek_data": Known(
        "no: all is said to be data",
        "pyfuse3 has no lseek request: the kernel says what it says of a filesystem that knows no holes",
        "right by the manual: cp, tar -S and rsync -S read zeros; `cp --sparse=always` finds holes by itself",
    ),
    "seek_hole": Known(
        "no: none but at the end", "as SEEK_DATA", "as SEEK_DATA; st_blocks tells that there are holes (du is right)"
    ),
    "fiemap": Known("no: EOPNOTSUPP", "the kernel's FUSE has no such request", "filefrag shows no extent"),
    "birth_time": Known("no: not told", _NO_REQUEST + " (statx)", "stat prints -, find -newerB says that it cannot"),
    "statx_attributes": Known(
        "no: not told", _NO_REQUEST + " (statx)", "nobody takes a file for immutable or compressed that is not"
    ),
    "times_before_1901": Known(
        "yes", "times are 64 bits of nanoseconds: 1677 to 2262", "more works than on ext4", "mount/test_attributes.py"
    ),
    "times_after_2446": Known(
        "no: it becomes 9223372036 s",
        "times are 64 bits of nanoseconds: 1677 to 2262, and the nearest is taken",
        "as on ext4, which takes the nearest that it can keep (2446)",
        "mount/test_attributes.py",
    ),
    "atime_of_a_file": _NOATIME,
    "atime_of_a_directory": _NOATIME,
    "atime_of_a_symlink": _NOATIME,
    "blocks_of_scattered_bytes": Known(
        "8",
        "what was written is counted to the byte, and rounded up once for the file",
        "du says less than ext4's pages take; what holds more bytes than blocks is taken for sparse, and read right",
        "mount/test_attributes.py",
    ),
    "bits_after_append_by_root": Known(
        "dropped",
        "such a write passes the kernel's pages by, and pyfuse3 does not say who writes"
        " (docs/decisions/direct-writes.md)",
        "a set-id program that root writes into in place loses its bits; installers set them last",
        "mount/test_direct_writes.py",
    ),
    "set_gid_without_execution_after_write": _SET_GID_MARK,
    "set_gid_without_execution_after_truncate": _SET_GID_MARK,
    "acl_is_set": _ACL,
    "acl_is_obeyed": _ACL,
    "acl_is_inherited": _ACL,
    "largest_value": Known(
        "65,536", "the system call's own limit", "more works than on ext4", "mount/test_semantics.py"
    ),
    "fanotify_of_a_filesystem": Known(
        "no: ENODEV",
        "a FUSE mount has no f_fsid",
        "marks on the mount, on directories and on files work",
        "mount/test_watching.py",
    ),
    "nowait": Known(
        "no: EOPNOTSUPP",
        "the kernel's FUSE does not say FMODE_NOWAIT",
        "io_uring uses its threads",
        "posix/transfers.py",
    ),
}
