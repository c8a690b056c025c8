"""The command line's end of the control socket: plain, blocking, quick to import.

Knows nothing of what a request does, and loads no event loop.

C1. Nothing is left behind when the daemon does not answer: a connection is closed on the way out of its `with`.
C2. "Nobody is there" is an answer (None), "somebody is there and does not answer" an error.
"""

import os
import socket
from types import TracebackType
from typing import Final, Self, TypeVar

from helios_fs.control import messages
from helios_fs.errors import Busy, HeliosError, InvalidArgument

HELLO_TIMEOUT_SECONDS: Final = 10.0

_R = TypeVar("_R", bound=messages.Reply)


def socket_name(branch: str) -> str:
    """Return the name of a branch's control socket in STORE/run.

    A branch of a branch has a slash in its name, which a file name cannot have.
    """
    return branch.replace("%", "%25").replace("/", "%2F") + ".sock"


class HungUp(HeliosError):
    """The daemon ended the conversation: it has ended, or it has let go of the branch."""


class Connection:
    """A conversation with the daemon that owns a branch."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._reader = connected.makefile("rb")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._reader.close()
        self._socket.close()

    def ask(self, request: messages.Request, reply_type: type[_R], timeout_seconds: float | None = None) -> _R:
        """Return the daemon's reply; wait for as long as it takes where no timeout is given.

        Raises what the daemon said it failed with, Busy where it does not answer in time, HungUp.
        """
        line = messages.encode(request)
        if len(line) > messages.MAX_REQUEST_BYTES:
            raise InvalidArgument("too many paths in one request; name their directory instead")
        self._socket.settimeout(timeout_seconds)
        try:
            self._socket.sendall(line)
            line = self._reader.readline()
        except TimeoutError:
            raise Busy("the daemon of this workspace does not answer") from None
        except OSError as error:
            raise HungUp(f"the daemon of this workspace hung up: {error.strerror or error}") from error
        if not line.endswith(b"\n"):
            raise HungUp("the daemon of this workspace hung up before it answered; see `helios doctor`")
        reply = messages.decode_reply(line)
        if isinstance(reply, messages.Failed):
            raise messages.raised(reply)
        if not isinstance(reply, reply_type):
            raise InvalidArgument(f"the daemon answered {type(reply).__name__} to {type(request).__name__}")
        return reply

    def wait_for_hangup(self, timeout_seconds: float) -> None:
        """Return when the daemon has closed its end. Raises Busy where it has not in time."""
        self._socket.settimeout(timeout_seconds)
        try:
            while self._reader.readline():
                pass
        except TimeoutError:
            raise Busy("the daemon of this workspace does not end") from None
        except ConnectionResetError:
            pass

    def hello(self) -> messages.HelloReply:
        """Return who it is. Raises Busy where it does not answer within ten seconds."""
        return self.ask(messages.Hello(), messages.HelloReply, HELLO_TIMEOUT_SECONDS)


def find_daemon(store: str, branch: str) -> Connection | None:
    """Return a connection to the daemon that owns a branch of a store, or None where there is none.

    Raises HeliosError where there is one that this user may not talk to.
    """
    try:
        # sun_path holds 108 bytes (unix(7)) and a store's path may be longer: go through the directory's descriptor.
        folder = os.open(os.path.join(store, "run"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connecting.connect(f"/proc/self/fd/{folder}/{socket_name(branch)}")
    except (FileNotFoundError, ConnectionRefusedError):
        connecting.close()
        return None
    except OSError as error:
        connecting.close()
        raise HeliosError(f"the daemon of {store} cannot be asked: {error.strerror}") from error
    finally:
        os.close(folder)
    return Connection(connecting)
