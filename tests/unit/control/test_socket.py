"""The socket, with a real server on a real event loop in a thread, and real clients."""

import multiprocessing
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from helios_fs.control import client, messages, server
from helios_fs.errors import Busy, HeliosError, InvalidArgument, NoSuchEntry, NotPermitted


class Answers:
    """A service whose answers show what it was asked."""

    def __init__(self) -> None:
        self.waiting = threading.Event()

    async def hello(self, request: messages.Hello) -> messages.HelloReply:
        return messages.HelloReply(os.getpid(), b"/store", "main", b"/mount", "0")

    async def take_snapshot(self, request: messages.TakeSnapshot) -> messages.SnapshotTaken:
        return messages.SnapshotTaken(f"{request.name!r} {request.message} {request.sync}")

    async def list_snapshots(self, request: messages.ListSnapshots) -> messages.Snapshots:
        raise NoSuchEntry("none here")

    async def describe_snapshot(self, request: messages.DescribeSnapshot) -> messages.SnapshotDescribed:
        raise NotPermitted("never")

    async def delete_snapshots(self, request: messages.DeleteSnapshots) -> messages.SnapshotsDeleted:
        return messages.SnapshotsDeleted()

    async def seal(self, request: messages.Seal) -> messages.Sealed:
        self.waiting.set()
        await trio.sleep_forever()
        raise AssertionError

    async def restore(self, request: messages.Restore) -> messages.Restored:
        return messages.Restored(request.id, len(request.paths))

    async def collect(self, request: messages.Collect) -> messages.Collected:
        return messages.Collected(problems=("release only",) if request.release_only else ())

    async def open_branch(self, request: messages.OpenBranch) -> messages.BranchOpened:
        return messages.BranchOpened(request.branch.encode())

    async def close_branch(self, request: messages.CloseBranch) -> messages.BranchClosed:
        return messages.BranchClosed(False)

    async def list_branches(self, request: messages.ListBranches) -> messages.BranchNames:
        return messages.BranchNames({"name": "id"})

    async def make_branch(self, request: messages.MakeBranch) -> messages.BranchMade:
        return messages.BranchMade(f"{request.name} {request.uid} {request.snapshot}")

    async def rename_branch(self, request: messages.RenameBranch) -> messages.BranchChanged:
        raise NoSuchEntry(f"{request.branch} {request.name}")

    async def delete_branch(self, request: messages.DeleteBranch) -> messages.BranchChanged:
        return messages.BranchChanged()

    async def merge(self, request: messages.Merge) -> messages.Merged:
        return messages.Merged("", "", [], 0, True)

    async def bring_back_branch(self, request: messages.BringBackBranch) -> messages.BranchChanged:
        return messages.BranchChanged()

    async def stats(self, request: messages.Stats) -> messages.StatsReply:
        raise ZeroDivisionError("a bug")

    async def unmount(self, request: messages.Unmount) -> messages.Unmounting:
        return messages.Unmounting()


class Running:
    """A server in a thread, over the folder STORE/run of a store."""

    def __init__(self, store: Path, branch: str = "main") -> None:
        self.store = store
        self.service = Answers()
        self.name = client.socket_name(branch)
        self._folder = os.open(store / "run", os.O_PATH)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10)
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(server.serve, self._folder, self.name, self.service)
                self._ready.set()

    def stop(self) -> None:
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive()
        os.close(self._folder)

    def connect(self) -> client.Connection:
        found = client.find_daemon(str(self.store), "main")
        assert found is not None
        return found

    def raw(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(10)
        connected.connect(f"/proc/self/fd/{self._folder}/{self.name}")
        return connected


@pytest.fixture
def store(tmp_path: Path) -> Path:
    # Longer than the 108 bytes that a socket's address may have.
    folder = tmp_path / ("long" * 30)
    (folder / "run").mkdir(parents=True)
    return folder


@pytest.fixture
def running(store: Path) -> Iterator[Running]:
    it = Running(store)
    yield it
    it.stop()


def test_a_conversation(running: Running) -> None:
    with running.connect() as connection:
        assert connection.hello().pid == os.getpid()
        taken = connection.ask(messages.TakeSnapshot(b"\xff", "why", sync=True), messages.SnapshotTaken)
        assert taken.id == r"b'\xff' why True"
        assert connection.ask(messages.Restore("x", [b"a", b"b"]), messages.Restored).changed == 2


def test_an_error_of_ours_arrives_and_the_conversation_goes_on(running: Running) -> None:
    with running.connect() as connection:
        with pytest.raises(NoSuchEntry, match="none here"):
            connection.ask(messages.ListSnapshots(), messages.Snapshots)
        assert connection.hello().branch == "main"


def test_a_bug_is_told_logged_and_survived(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with running.connect() as connection:
        with pytest.raises(HeliosError, match="ZeroDivisionError: a bug"):
            connection.ask(messages.Stats(), messages.StatsReply)
        assert "Traceback" in caplog.text
        assert connection.hello().branch == "main"


def test_a_reply_of_the_wrong_kind_is_refused(running: Running) -> None:
    with running.connect() as connection, pytest.raises(InvalidArgument, match="HelloReply"):
        connection.ask(messages.Hello(), messages.Sealed)


def test_the_socket_is_private_and_goes_with_the_server(store: Path) -> None:
    running = Running(store)
    path = store / "run" / "main.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    running.stop()
    assert not path.exists()


def test_the_socket_of_a_dead_daemon_is_replaced(store: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    folder = os.open(store / "run", os.O_PATH)
    left.bind(f"/proc/self/fd/{folder}/main.sock")
    left.close()
    os.close(folder)
    assert client.find_daemon(str(store), "main") is None
    running = Running(store)
    running.connect().close()
    running.stop()


def test_a_file_in_the_way_is_not_removed(store: Path) -> None:
    (store / "run" / "main.sock").write_text("mine")
    with pytest.raises(ExceptionGroup) as raised:
        Running(store)
    assert raised.group_contains(OSError)
    assert (store / "run" / "main.sock").read_text() == "mine"


def test_nobody_there(store: Path, tmp_path: Path) -> None:
    assert client.find_daemon(str(store), "main") is None
    assert client.find_daemon(str(tmp_path / "no-such-store"), "main") is None


def test_a_stuck_client_blocks_nobody(running: Running) -> None:
    with running.raw() as silent, running.raw() as half, running.connect() as waiting:
        half.sendall(b'{"type":')
        with pytest.raises(Busy):
            waiting.ask(messages.Seal(), messages.Sealed, timeout_seconds=0.2)
        assert running.service.waiting.wait(10)
        with running.connect() as connection:
            assert connection.hello().branch == "main"
        half.sendall(b'"Hello"}\n')
        assert b"HelloReply" in half.recv(65536)
        silent.close()


def test_requests_may_come_together_and_in_pieces(running: Running) -> None:
    with running.raw() as connected:
        connected.sendall(messages.encode(messages.Hello()) * 3 + b'{"type":"Un')
        connected.sendall(b'mount"}\n')
        with connected.makefile("rb") as reader:
            kinds = [type(messages.decode_reply(reader.readline())) for _ in range(4)]
    assert kinds == [messages.HelloReply] * 3 + [messages.Unmounting]


def test_nonsense_is_told_and_the_conversation_goes_on(running: Running) -> None:
    with running.raw() as connected, connected.makefile("rb") as reader:
        connected.sendall(b"\x00\xff nonsense\n")
        reply = messages.decode_reply(reader.readline())
        assert isinstance(reply, messages.Failed) and reply.error == "InvalidArgument"
        connected.sendall(messages.encode(messages.Hello()))
        assert b"HelloReply" in reader.readline()


def test_a_request_that_is_too_long_is_refused_and_the_connection_closed(running: Running) -> None:
    with running.raw() as connected, connected.makefile("rb") as reader:
        try:
            connected.sendall(b"x" * (messages.MAX_REQUEST_BYTES + 70_000))
        except BrokenPipeError:
            pass  # the server hung up before all of it was sent, as it may
        reply = messages.decode_reply(reader.readline())
        assert isinstance(reply, messages.Failed) and "1048576" in reply.message
    with running.connect() as connection, pytest.raises(InvalidArgument, match="too many paths"):
        connection.ask(messages.Restore("x", [b"p" * 4000] * 300), messages.Restored)


def test_the_server_ends_while_a_request_waits(store: Path) -> None:
    running = Running(store)
    said: list[BaseException] = []

    def ask(connection: client.Connection) -> None:
        with connection, pytest.raises(HeliosError, match="hung up") as raised:
            connection.ask(messages.Seal(), messages.Sealed)
        said.append(raised.value)

    asking = threading.Thread(target=ask, args=(running.connect(),))
    asking.start()
    assert running.service.waiting.wait(10)
    running.stop()
    asking.join(10)
    assert len(said) == 1


def _as_other_user(path: str, results: "multiprocessing.queues.SimpleQueue[str]") -> None:
    os.setuid(65534)
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(path)
        with connected.makefile("rb") as reader:
            results.put(reader.readline().decode())


@pytest.mark.root
def test_another_user_is_refused_even_where_the_file_lets_them_in() -> None:
    # Not below tmp_path, which pytest keeps from other users.
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        (Path(folder) / "run").mkdir(mode=0o755)
        running = Running(Path(folder))
        path = os.path.join(folder, "run", "main.sock")
        os.chmod(path, 0o777)
        context = multiprocessing.get_context("fork")
        results = context.SimpleQueue()
        asking = context.Process(target=_as_other_user, args=(path, results))
        asking.start()
        asking.join(10)
        assert asking.exitcode == 0
        reply = messages.decode_reply(results.get().encode())
        running.stop()
    assert isinstance(reply, messages.Failed)
    assert type(messages.raised(reply)) is NotPermitted


@pytest.mark.parametrize(("branch", "name"), [("main", "main.sock"), ("a/b", "a%2Fb.sock"), ("a%2Fb", "a%252Fb.sock")])
def test_every_branch_has_a_socket_of_its_own(branch: str, name: str) -> None:
    assert client.socket_name(branch) == name
