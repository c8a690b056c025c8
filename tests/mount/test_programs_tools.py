"""The everyday tools: what each leaves in the mount is what it leaves on the disk."""

import os
import re
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.mounted import Workspace
from tests.mount.programs import differences, need, run

pytestmark = pytest.mark.fuse


def fill(tree: Path, files: int = 40) -> Path:
    """Make a small tree whose files are some hours old."""
    for number in range(files):
        directory = tree / f"d{number % 4}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_text(f"line of {number}\n" * (number * 37))
        os.utime(directory / f"f{number}", (1_700_000_000 + number, 1_700_000_000 + number))
    return tree


# -- rsync -----------------------------------------------------------------------------------------------------------


def test_rsync_the_second_time_transfers_nothing(shared: Workspace, folder: Path, tmp_path: Path) -> None:
    source, copy = fill(tmp_path / "source"), folder / "copy"
    rsync = ("rsync", "-aHAX", "--itemize-changes", "--delete")
    assert run(*rsync, f"{source}/", f"{copy}/") != ""
    assert run(*rsync, f"{source}/", f"{copy}/") == ""
    shared.remount()
    assert run(*rsync, f"{source}/", f"{copy}/") == ""
    (source / "d1/f1").unlink()
    (copy / "more").mkdir()
    (copy / "more/file").touch()
    changed = run(*rsync, f"{source}/", f"{copy}/").split("\n")
    assert {line.split()[-1] for line in changed if line.startswith("*deleting")} == {"d1/f1", "more/", "more/file"}
    assert differences(source, copy) == ""


def test_rsync_in_place_keeps_the_file(folder: Path, tmp_path: Path) -> None:
    source, copy = tmp_path / "data", folder / "data"
    source.write_bytes(bytes(range(256)) * 4096)
    run("rsync", "-a", "--inplace", source, copy)
    number = copy.stat().st_ino
    with open(source, "r+b") as file:
        file.seek(500_000)
        file.write(b"changed in the middle")
        file.truncate(900_000)
    # Only the differing block is written; what goes over the wire says so.
    said = run("rsync", "-a", "--inplace", "--no-whole-file", "--stats", source, copy)
    literal = re.search(r"Literal data: ([\d,]+)", said)
    assert literal is not None
    assert int(literal[1].replace(",", "")) < 10_000
    assert copy.stat().st_ino == number
    assert copy.read_bytes() == source.read_bytes()
    with open(source, "ab") as file:
        file.write(b"appended")
    run("rsync", "-a", "--append-verify", source, copy)
    assert copy.read_bytes() == source.read_bytes()
    assert copy.stat().st_ino == number


# -- Archives --------------------------------------------------------------------------------------------------------


def test_tar_of_holes_and_attributes(folder: Path, tmp_path: Path) -> None:
    source = fill(tmp_path / "source")
    with open(source / "holes", "wb") as file:
        for offset in (0, 5 << 20, 9 << 20):
            file.seek(offset)
            file.write(b"data between holes")
        file.truncate(16 << 20)
    os.setxattr(source / "d0", "user.of-a-directory", b"\0kept")
    os.setxattr(source / "holes", "user.empty", b"")
    tar = ("tar", "--sparse", "--xattrs", "--xattrs-include=*", "--acls")
    for number, (there, back) in enumerate([(source, folder / "inside"), (folder / "inside", tmp_path / "back")]):
        archive = folder / f"{number}.tar"
        run(*tar, "-cpf", archive, "-C", there, ".")
        # Written out, the holes alone would be 16 MiB.
        assert archive.stat().st_size < 4 << 20
        back.mkdir()
        run(*tar, "-xpf", archive, "-C", back)
        assert differences(source, back) == ""
        run("tar", "--compare", "-f", archive, "-C", back)
        assert (back / "holes").stat().st_blocks * 512 < 1 << 20
        assert os.getxattr(back / "d0", "user.of-a-directory") == b"\0kept"


def test_zip_and_unzip(folder: Path, tmp_path: Path) -> None:
    source = fill(tmp_path / "source")
    (source / "link").symlink_to("d0/f0")
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    archive = folder / "all.zip"
    run(need("zip", "zip"), "-q", "-r", "--symlinks", archive, ".", where=source)
    (source / "run.sh").write_text("#!/bin/sh\n# A new archive is put in place of the old one.\n")
    run("zip", "-q", archive, "run.sh", where=source)
    run(need("unzip", "unzip"), "-q", archive, "-d", folder / "inside")
    run("unzip", "-q", "-t", archive)
    # zip keeps even seconds, and none of a link.
    assert differences(source, folder / "inside", "--modify-window=2", "--omit-link-times", "--omit-dir-times") == ""
    assert run(need("python3", "python3"), "-m", "zipfile", "-t", archive).strip() == "Done testing"


# -- cp, install, mktemp, mv -----------------------------------------------------------------------------------------


def test_cp_of_holes(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    with open(source, "wb") as file:
        file.write(b"\0" * (4 << 20) + b"data" + b"\0" * (4 << 20))
    run("cp", "-a", source, folder / "zeros")
    run("cp", "-a", "--reflink=auto", folder / "zeros", folder / "copy")
    run("cp", "-a", "--sparse=always", folder / "zeros", folder / "sparse")
    run("cp", "-a", folder / "sparse", tmp_path / "back")
    for copy in (folder / "zeros", folder / "copy", folder / "sparse", tmp_path / "back"):
        assert copy.read_bytes() == source.read_bytes()
        assert copy.stat().st_mtime_ns == source.stat().st_mtime_ns
    assert (folder / "sparse").stat().st_blocks * 512 < 1 << 20
    # What cannot be had is refused, and leaves nothing behind that looks like a copy.
    run("cp", "--reflink=always", folder / "zeros", folder / "clone", code=1)
    assert not (folder / "clone").exists() or (folder / "clone").stat().st_size == 0


def test_install_and_mktemp(folder: Path) -> None:
    (folder / "program").write_text("#!/bin/sh\necho installed\n")
    run("install", "-D", "-p", "-m", "0751", folder / "program", folder / "usr/bin/program")
    run("install", "-d", "-m", "2755", folder / "var/lib")
    run("install", "--backup=numbered", folder / "program", folder / "usr/bin/program")
    assert run(folder / "usr/bin/program") == "installed\n"
    assert sorted(os.listdir(folder / "usr/bin")) == ["program", "program.~1~"]
    assert stat.S_IMODE((folder / "usr/bin/program.~1~").stat().st_mode) == 0o751
    assert stat.S_IMODE((folder / "var/lib").stat().st_mode) == 0o2755
    made = {Path(run("mktemp", "-p", folder).strip()) for _ in range(5)}
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}
    directory = Path(run("mktemp", "-d", "--tmpdir", TMPDIR=str(folder)).strip())
    assert directory.parent == folder
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


# -- Editors ---------------------------------------------------------------------------------------------------------


def edit_and_undo(place: Path, backupcopy: str, between: Callable[[], object]) -> list[object]:
    """Change a file of two names and one of one name, take it back in another vim; return what was seen."""
    # Without the first vim makes no backup below /tmp.
    settings = f"set backupskip= undofile undodir={place} directory={place} backupcopy={backupcopy} writebackup"
    vim = (need("vim", "vim"), "-es", "-N", "-u", "NONE", "-i", "NONE", "--cmd", settings)
    numbers: dict[Path, int] = {}
    seen: list[object] = []
    for file in (place / "linked", place / "single"):
        file.write_text("first\nsecond\n")
        if file.name == "linked":
            os.link(file, place / "same")
        numbers[file] = file.stat().st_ino
        run(*vim, "-c", f"redir! > {place}/swap", "-c", "swapname", "-c", "%s/second/third/", "-c", "wq", file)
        assert f"{file.name}.swp" in (place / "swap").read_text()
        seen += [file.read_text(), file.stat().st_ino == numbers[file], file.stat().st_nlink]
    between()
    for file, number in numbers.items():
        # The undo file knows the text by its hash.
        run(*vim, "-c", "undo", "-c", "wq", file)
        seen += [file.read_text(), file.stat().st_ino == number]
    assert not list(place.glob(".*.swp"))
    return [*seen, (place / "same").read_text()]


@pytest.mark.parametrize("backupcopy", ["auto", "yes"])
def test_vim(shared: Workspace, folder: Path, tmp_path: Path, backupcopy: str) -> None:
    """It saves by copying or by renaming, as it thinks right; keeps a swap file, and an undo file."""
    seen = edit_and_undo(folder, backupcopy, shared.remount)
    assert seen == edit_and_undo(tmp_path, backupcopy, lambda: None)
    assert {"first\nthird\n", "first\nsecond\n"} < set(seen)
    # A copy keeps the inode; `auto` renames, but for a file that has another name.
    assert (False in seen) == (backupcopy == "auto")


def test_vim_recovers_from_its_swap_file(shared: Workspace, folder: Path) -> None:
    vim = (need("vim", "vim"), "-es", "-N", "-u", "NONE", "-i", "NONE")
    file = folder / "text"
    file.write_text("first\nsecond\n")
    # It writes its swap file and dies as in a power cut, without a word to the text.
    run(*vim, "-c", "%s/second/third/", "-c", "preserve", "-c", "call system('kill -9 ' . getpid())", file, code=-9)
    assert file.read_text() == "first\nsecond\n"
    assert (folder / ".text.swp").exists()
    shared.kill()
    shared.mount()
    run(*vim, "-r", "-c", "w! recovered", "-c", "q!", file, where=folder, code=0)
    assert (folder / "recovered").read_text() == "first\nthird\n"


def test_sed_in_place(folder: Path) -> None:
    (folder / "text").write_text("first\nsecond\n")
    (folder / "link").symlink_to("text")
    run("sed", "-i.orig", "s/second/third/", folder / "text")
    assert (folder / "text.orig").read_text() == "first\nsecond\n"
    run("sed", "-i", "--follow-symlinks", "s/first/zeroth/", folder / "link")
    assert (folder / "text").read_text() == "zeroth\nthird\n"
    run("perl", "-pi", "-e", "s/third/fourth/", folder / "text")
    assert (folder / "text").read_text() == "zeroth\nfourth\n"
    assert sorted(os.listdir(folder)) == ["link", "text", "text.orig"]


# -- Finding and comparing -------------------------------------------------------------------------------------------


def test_find_and_du(shared: Workspace, folder: Path, tmp_path: Path) -> None:
    fill(folder)
    fill(tmp_path)
    shared.remount()
    (folder / "marker").touch()
    os.utime(folder / "marker", (1_700_000_029, 1_700_000_029))
    newer = run("find", ".", "-type", "f", "-newer", "marker", where=folder).split()
    assert sorted(newer) == sorted(f"./d{n % 4}/f{n}" for n in range(30, 40))
    number = (folder / "d3/f7").stat().st_ino
    os.link(folder / "d3/f7", folder / "d0/again")
    assert sorted(run("find", ".", "-inum", str(number), where=folder).split()) == ["./d0/again", "./d3/f7"]
    assert sorted(run("find", ".", "-samefile", "d3/f7", where=folder).split()) == ["./d0/again", "./d3/f7"]
    # A directory without further ones has two links: find trusts that where it is told so.
    assert run("find", folder, "-type", "d", "-links", "2").count("\n") == 4
    assert run("find", folder, "-size", "+20k", "-printf", "x") == run(
        "find", tmp_path, "-size", "+20k", "-printf", "x"
    )
    (folder / "d0/again").unlink()
    (folder / "marker").unlink()
    files = ("-type", "f", "-printf", "%s\\n")
    size = sum(map(int, run("find", folder, *files).split()))
    assert size == sum(map(int, run("find", tmp_path, *files).split()))
    used = int(run("du", "-s", "-B1", folder).split()[0])
    # Each file's last block is taken whole; directories take none.
    assert size <= used <= size + 40 * 4096


def test_diff_and_patch(folder: Path, tmp_path: Path) -> None:
    old, new = fill(folder / "old", 12), fill(folder / "new", 12)
    (new / "d1/f5").write_text((new / "d1/f5").read_text().replace("line of 5", "changed 5", 3))
    (new / "d2/f6").unlink()
    (new / "added").write_text("added\n")
    patch = run("diff", "-ruN", "old", "new", where=folder, code=1)
    assert "changed 5" in patch
    run(need("patch", "patch"), "-p1", "-d", old, stdin=patch)
    run("diff", "-r", old, new)
    run("patch", "-p1", "-R", "-b", "-d", old, stdin=patch)
    run("diff", "-r", "-x", "*.orig", old, fill(tmp_path / "old", 12))
    run("diff", "-r", "--brief", old, new, code=1)
    assert run("cmp", old / "d1/f5", new / "d1/f5", code=1) != ""


# -- Shells ----------------------------------------------------------------------------------------------------------

SCRIPT = """
set -eu
umask 027
mkdir -p deep/er/still && cd deep/er/still
for n in 1 2 3; do echo "$n" > "f$n"; done
cat f1 f2 f3 > ../all && sort -r -o ../all ../all
ln -s ../all link && ln f1 hard && mv f2 ../moved && cp -p f3 "../a name
with a newline"
(exec 9>lock; flock -n 9; ! flock -n lock true)
echo appended >> ../all; : > f3; truncate -s 10000 f3
split -b 3000 f3 part. && cat part.* | cmp - f3
tee -a ../all < f1 > /dev/null
mkfifo pipe; echo through > pipe & cat pipe; wait
cd .. && rmdir still 2>/dev/null && exit 1
chmod -R go-w . && find . -name 'part.*' -delete
find . -printf '%P %y %m %n %s %l\\n' | LC_ALL=C sort | grep -v ' d '
cat all
"""


NODE_SCRIPT = """
const fs = require('fs'), path = require('path');
for (let i = 0; i < 20; i++) {
  fs.mkdirSync(`tree/d${i % 3}`, {recursive: true});
  fs.writeFileSync(`tree/d${i % 3}/f${i}`, 'x'.repeat(i * 100));
}
fs.cpSync('tree', 'copy', {recursive: true, preserveTimestamps: true});
fs.copyFileSync('tree/d1/f1', 'one', fs.constants.COPYFILE_FICLONE);
try { fs.copyFileSync('one', 'one', fs.constants.COPYFILE_EXCL); } catch (error) { console.log(error.code); }
fs.renameSync('tree/d2', 'copy/moved');
fs.appendFileSync('one', 'appended');
fs.truncateSync('copy/moved/f5', 3);
fs.symlinkSync('copy', 'link', 'dir');
fs.rmSync('tree', {recursive: true});
const fd = fs.openSync('one', 'r+');
fs.writeSync(fd, 'XX', 4); fs.fsyncSync(fd); fs.closeSync(fd);
console.log(fs.readFileSync('one', 'latin1'), fs.existsSync('tree'), fs.realpathSync('link') === path.resolve('copy'));
const size = name => fs.statSync(name).isDirectory() || fs.statSync(name).size;
console.log(fs.readdirSync('.', {recursive: true}).sort().map(name => [name, size(name)]));
(async () => {
  await Promise.all([...Array(50).keys()].map(i => fs.promises.writeFile(`async${i}`, String(i))));
  const read = await Promise.all([...Array(50).keys()].map(i => fs.promises.readFile(`async${i}`, 'utf8')));
  console.log(read.reduce((sum, text) => sum + Number(text), 0));
})();
"""


@pytest.mark.parametrize("language", ["bash", "node"])
def test_a_script_does_the_same_as_on_the_disk(folder: Path, tmp_path: Path, language: str) -> None:
    command = {"bash": ("bash", "-c", SCRIPT), "node": (need("node", "nodejs"), "-e", NODE_SCRIPT)}[language]
    (tmp_path / "plain").mkdir()
    printed = [run(*command, where=place) for place in (folder, tmp_path / "plain")]
    assert printed[0] == printed[1]
    assert ("through" if language == "bash" else "1225") in printed[0]


def test_tail_follows_and_logs_rotate(folder: Path) -> None:
    log = folder / "log"
    log.write_text("one\n")
    tail = subprocess.Popen(["tail", "-n", "+1", "-F", "-s", "0.05", log], stdout=subprocess.PIPE, text=True)
    try:
        assert tail.stdout is not None
        assert tail.stdout.readline() == "one\n"
        with open(log, "a") as file:
            file.write("two\n")
        assert tail.stdout.readline() == "two\n"
        os.rename(log, folder / "log.1")
        log.write_text("three\n")
        began = time.monotonic()
        assert tail.stdout.readline() == "three\n"
        assert time.monotonic() - began < 10
    finally:
        tail.kill()
        tail.communicate()
