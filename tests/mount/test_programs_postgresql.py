"""PostgreSQL with its data directory in the mount: initdb, pgbench, kill -9 of the server and of the daemon.

The server refuses to run as root, so root runs it in a user namespace that calls it 1000: to the mount it is still the
user that mounted.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.mounted import PATIENCE_SECONDS, Killer, Workspace
from tests.mount.programs import TORTURE, need, run

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

SECONDS = 30 if TORTURE else 3
CLIENTS = 4
# What pgbench's transactions keep equal.
BALANCES = """
select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)
   and (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history)
   and (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history)
"""


class Server:
    """A PostgreSQL cluster below `folder`, and its clients."""

    def __init__(self, folder: Path, socket: Path) -> None:
        self.data = folder / "data"
        self.socket = socket
        self._postmaster: subprocess.Popen[bytes] | None = None
        self._environment = {"PGHOST": str(socket), "PGUSER": "tester", "PGDATABASE": "postgres"}
        self._unprivileged = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs as the cluster's owner."""
        return run(*self._unprivileged, need(program, "postgresql"), *arguments, **self._environment)

    def initialise(self) -> None:
        """Make the cluster, with checksums on its pages, synced to the disk."""
        options = ("-A", "trust", "-U", "tester", "--no-locale", "-E", "UTF8", "--data-checksums")
        self.run("initdb", "-D", str(self.data), *options)
        with open(self.data / "postgresql.conf", "a") as settings:
            settings.write(f"listen_addresses = ''\nunix_socket_directories = '{self.socket}'\nshared_buffers = 8MB\n")
            settings.write("fsync = on\nfull_page_writes = on\ncheckpoint_timeout = 30s\n")

    def start(self) -> None:
        """Start the server; return when it has recovered and answers."""
        command = [*self._unprivileged, need("postgres", "postgresql"), "-D", str(self.data)]
        with open(f"{self.data}.log", "ab") as log:
            # Our own child, not pg_ctl's: one that was killed must not stay behind as a zombie with a number in use.
            self._postmaster = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        ready = [need("pg_isready", "postgresql"), "-q", "-h", str(self.socket)]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while subprocess.run(ready).returncode != 0:
            assert self.is_running(), Path(f"{self.data}.log").read_text()
            assert time.monotonic() < deadline, "the server does not answer"

    def stop(self) -> None:
        """Stop it in good order."""
        assert self._postmaster is not None
        self._postmaster.send_signal(signal.SIGINT)
        assert self._postmaster.wait(PATIENCE_SECONDS) == 0

    def is_running(self) -> bool:
        """Tell whether it was started and has not ended."""
        return self._postmaster is not None and self._postmaster.poll() is None

    def ask(self, query: str) -> str:
        """Return what a query answers, one row a line."""
        return self.run("psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", query).strip()

    @contextmanager
    def pgbench(self, seconds: int) -> Iterator["subprocess.Popen[str]"]:
        """Clients that move money about, for as long as the context lasts; each move is a line in pgbench_history."""
        command = (need("pgbench", "postgresql"), "-c", str(CLIENTS), "-T", str(seconds), "-n")
        clients = subprocess.Popen(
            [*self._unprivileged, *command],
            env=os.environ | self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield clients
        finally:
            clients.kill()
            clients.communicate()

    def kill(self) -> None:
        """Kill the server and all that it has started; return when they are gone."""
        assert self._postmaster is not None
        number = self._postmaster.pid
        children = map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split())
        killers = [Killer(number), *(killer for child in children if (killer := find_killer(child)) is not None)]
        for killer in killers:
            killer.kill()
        for killer in killers:
            killer.wait()
        self._postmaster.wait()

    def check(self) -> None:
        """Compare the balances, every page's checksum and every index with its table."""
        assert self.ask(BALANCES) == "t"
        self.run("pg_amcheck", "--install-missing", "--heapallindexed", "-d", "postgres")


def find_killer(process: int) -> Killer | None:
    """Return what kills a process, or None where it has just ended by itself."""
    try:
        return Killer(process)
    except ProcessLookupError:
        return None


@pytest.fixture(scope="module")
def server(shared: Workspace) -> Iterator[Server]:
    """A running server in the shared mount, with pgbench's tables."""
    # A unix socket's path has at most 107 bytes, fewer than a test's folder may take.
    socket = Path(tempfile.mkdtemp(prefix="pg."))
    server = Server(shared.path, socket)
    try:
        server.initialise()
        server.start()
        server.run("pgbench", "-q", "-i", "-s", "1", "--foreign-keys")
        yield server
        server.stop()
    finally:
        if server.is_running():
            server.kill()
        shutil.rmtree(socket)


def moves(server: Server) -> int:
    return int(server.ask("select count(*) from pgbench_history"))


def work(server: Server, number: int) -> int:
    """Return when clients have made that many moves; how many there are by then."""
    wanted = moves(server) + number
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (seen := moves(server)) < wanted:
        assert time.monotonic() < deadline, f"{seen} of {wanted}"
    return seen


def acknowledged(clients: "subprocess.Popen[str]", code: int) -> int:
    """Return how many moves the clients were told of, when pgbench has ended."""
    printed = clients.communicate(timeout=SECONDS + PATIENCE_SECONDS)[0]
    assert clients.returncode == code, printed
    found = next(line for line in printed.splitlines() if line.startswith("number of transactions actually processed"))
    return int(found.split(":")[1])


def test_every_move_is_there_after_a_remount(shared: Workspace, server: Server) -> None:
    before = moves(server)
    with server.pgbench(SECONDS) as clients:
        done = acknowledged(clients, 0)
    assert done > 0
    server.ask("vacuum full pgbench_accounts")
    server.stop()
    shared.remount()
    server.start()
    assert moves(server) == before + done
    server.check()


@pytest.mark.parametrize("killed", ["server", "daemon"])
def test_every_move_is_there_after_a_kill(shared: Workspace, server: Server, killed: str) -> None:
    for _ in range(10 if TORTURE else 1):
        before = moves(server)
        with server.pgbench(600) as clients:
            work(server, 200)
            if killed == "daemon":
                shared.kill()
            server.kill()
            done = acknowledged(clients, 2)
        if killed == "daemon":
            shared.mount()
        server.start()
        # Each client may have had one move on its way.
        assert before + done <= moves(server) <= before + done + CLIENTS
        server.check()


def test_a_snapshot_of_a_running_server_recovers(shared: Workspace, server: Server, tmp_path: Path) -> None:
    """A snapshot is one instant of all files, as a power cut is: what was committed before it is in it."""
    with server.pgbench(600) as clients:
        seen = work(server, 50)
        (shared.path / ".snapshots" / "live").mkdir()
        no_more = moves(server) + CLIENTS
        run("cp", "-a", shared.path / ".snapshots/live/data", tmp_path)
        server.kill()
        acknowledged(clients, 2)
    (tmp_path / "data/postmaster.pid").unlink()
    copy = Server(tmp_path, server.socket)
    copy.start()
    try:
        assert seen <= moves(copy) <= no_more
        copy.check()
    finally:
        copy.stop()
    server.start()
    server.check()
