"""The request loop on a real mount: the fast one, and the stock one it falls back to."""

import errno
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
import trio

import helios_fs
from helios_fs.fuse import loop

pytestmark = pytest.mark.fuse

DAEMON = Path(__file__).with_name("tiny_mount.py")
PATIENCE_SECONDS = 30


class Mount:
    """A running tiny_mount.py."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        environment = os.environ | {"PYTHONPATH": str(Path(helios_fs.__file__).parent.parent)}
        self.process = subprocess.Popen(
            [sys.executable, str(DAEMON), str(path), *options],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stdin, self.stdout, self.stderr = map(
            _present, (self.process.stdin, self.process.stdout, self.process.stderr)
        )
        if self.stdout.readline() != "ready\n":
            raise AssertionError(f"no mount: {self.stderr.read()}")

    def exists(self, name: str) -> bool:
        try:
            os.stat(self.path / name)
        except FileNotFoundError:
            return False
        return True

    def ticks(self) -> int:
        return os.stat(self.path / "ticks").st_size

    def unmount(self, *flags: str) -> None:
        subprocess.run(["fusermount3", "-u", *flags, str(self.path)], check=True, timeout=PATIENCE_SECONDS)

    def terminate(self) -> None:
        self.stdin.write("terminate\n")
        self.stdin.flush()

    def wait(self) -> tuple[int, str]:
        """Return the daemon's exit code and what it wrote to standard error."""
        return self.process.wait(PATIENCE_SECONDS), self.stderr.read()


def _present(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[Mount]:
    path.mkdir()
    mount = Mount(path, *options)
    try:
        yield mount
    finally:
        if mount.process.poll() is None:
            mount.process.kill()
            mount.process.wait()
        for stream in (mount.stdin, mount.stdout, mount.stderr):
            stream.close()
        if os.path.ismount(path) or _is_stale(path):
            mount.unmount("-z")


def _is_stale(path: Path) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


@contextmanager
def hammering(mount: Mount, clients: int = 4) -> Iterator[None]:
    """Keep the daemon under constant load by processes of their own."""
    program = "import os,sys\nwhile True:\n try: os.stat(sys.argv[1])\n except FileNotFoundError: pass\n"
    target = str(mount.path / "nothing")
    command = [sys.executable, "-S", "-c", program, target]
    # When the mount goes away under them they end with a traceback, which is not the test's.
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(clients)]
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture(params=["fast", "stock"])
def mount(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mount]:
    options = ["--stock"] if request.param == "stock" else []
    with mounted(tmp_path / "mnt", *options) as running:
        assert running.exists("fast") == (request.param == "fast")
        yield running


def test_the_seam_is_open() -> None:
    """A new pyfuse3 fails here: read how it uses `trio`, try these tests, then name it in `_TESTED_VERSIONS`."""
    assert loop.seam_is_open()


def test_the_stock_loop_is_said_once(tmp_path: Path) -> None:
    with mounted(tmp_path / "mnt", "--stock") as mount:
        mount.unmount()
        code, log = mount.wait()
    assert code == 0
    assert len(log.splitlines()) == 1
    assert "not tested with the fast request loop" in log


def test_parallel_clients_get_their_own_answers(mount: Mount) -> None:
    def write_and_read(client: int) -> None:
        for number in range(40):
            path = mount.path / f"{client}.{number}"
            content = bytes([client]) * (1000 + 37 * number)
            path.write_bytes(content)
            assert path.stat().st_size == len(content)
            assert path.read_bytes() == content

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_and_read, range(8)))


@pytest.mark.parametrize("how", ["sleep", "thread"])
def test_others_are_served_while_a_handler_waits(mount: Mount, how: str) -> None:
    took: list[float] = []
    waiter = threading.Thread(target=mount.exists, args=[f"{how}-1000"])
    began = time.monotonic()
    waiter.start()
    while waiter.is_alive():
        before = time.monotonic()
        mount.exists("nothing")
        took.append(time.monotonic() - before)
    assert time.monotonic() - began >= 1
    # A loop that stood still for that second would have served one or two.
    assert len(took) > 100
    assert statistics.median(took) < 0.01


def test_fifty_handlers_wait_at_once(mount: Mount) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(lambda number: mount.exists(f"sleep-{300 + number}"), range(50)))
    assert time.monotonic() - began < 5  # 16 s one after the other
    assert not mount.exists("nothing")


def test_an_error_reaches_the_caller_and_the_mount_lives_on(mount: Mount) -> None:
    for _ in range(3):
        with pytest.raises(PermissionError):
            os.stat(mount.path / "denied")
    assert not mount.exists("nothing")


def test_timers_tick_under_constant_load(mount: Mount) -> None:
    with hammering(mount):
        before, began = mount.ticks(), time.monotonic()
        while mount.ticks() < before + 20:
            assert time.monotonic() - began < PATIENCE_SECONDS


@pytest.mark.parametrize("by", ["unmount", "terminate"])
def test_it_ends_when_idle(mount: Mount, by: str) -> None:
    mount.exists("sleep-1")  # so that there is a parked worker
    getattr(mount, by)()
    code, log = mount.wait()
    assert code == 0
    assert "Traceback" not in log
    assert not os.path.ismount(mount.path)


def test_it_ends_under_load(mount: Mount) -> None:
    with hammering(mount):
        before = mount.ticks()
        while mount.ticks() < before + 5:
            pass
        mount.terminate()
        code, log = mount.wait()
    assert code == 0
    assert "Traceback" not in log


def test_it_ends_while_a_handler_waits(mount: Mount) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(mount.exists, "sleep-500")
        before = mount.ticks()
        while mount.ticks() < before + 5:
            pass
        mount.unmount("-z")
        assert answer.result(PATIENCE_SECONDS)
    assert mount.wait()[0] == 0


def test_a_request_that_is_taken_back_stops_nothing(tmp_path: Path) -> None:
    """With `--deceive` the descriptor is said to be readable again and again when it is not (L1)."""
    with mounted(tmp_path / "mnt", "--deceive") as mount:
        began = time.monotonic()
        while time.monotonic() - began < 1:
            mount.exists("nothing")
            mount.exists("sleep-2")
        assert mount.ticks() > 20
        mount.unmount()
        code, log = mount.wait()
    assert code == 0
    assert "Traceback" not in log


def test_killed_clients_leave_it_serving(mount: Mount) -> None:
    for _ in range(10):
        with hammering(mount, clients=2):
            before = mount.ticks()
            while mount.ticks() < before + 3:
                pass
    assert not mount.exists("nothing")
    mount.unmount()
    assert mount.wait()[0] == 0


def test_only_a_lost_race_starts_a_worker_again() -> None:
    calls: list[int] = []

    async def worker(error: OSError) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise error

    async def main(error: OSError) -> None:
        async with loop._Nursery() as nursery:
            nursery.start_soon(worker, error)

    trio.run(main, OSError(errno.EAGAIN, "fuse_session_receive_buf failed with Resource temporarily unavailable"))
    assert len(calls) == 2
    for error in (OSError(errno.EAGAIN, "a handler's own"), OSError(errno.EIO, "fuse_session_receive_buf failed")):
        calls.clear()
        with pytest.raises(ExceptionGroup):
            trio.run(main, error)
        assert len(calls) == 1


def test_a_descriptor_that_is_always_readable_leaves_others_their_turn() -> None:
    async def main() -> None:
        seam = loop._Seam(loop._Baton())
        reading, writing = os.pipe()
        os.write(writing, b"a request")
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await trio.sleep(0.002)
                ticks += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            calls = 0
            while ticks < 10:
                calls += 1
                await seam.wait_readable(reading)
            nursery.cancel_scope.cancel()
        # Most calls were no checkpoint at all.
        assert calls > 100
        seam.notify_closing(reading)
        with pytest.raises(trio.ClosedResourceError):
            while True:
                await seam.wait_readable(reading)
        os.close(reading)
        os.close(writing)

    trio.run(main)
