"""Where connections come from: a port, or the descriptor that a super server hands over (inetd)."""

import errno
import os
import socket
import sys
from typing import Final

from stowkeeper.dcmtk.environment import LISTEN, Environment
from stowkeeper.dcmtk.start_checks import ListenError, StartError
from stowkeeper.net.limits import BACKLOG

_STANDARD_DESCRIPTORS: Final = (0, 1, 2)


def fill_standard_descriptors() -> None:
    """Put the null device on those of the descriptors 0, 1 and 2 that the process was started without.

    A connection would get such a number else, and what is printed, here or by a command that is run, would reach the peer.
    """
    for descriptor in _STANDARD_DESCRIPTORS:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which gets the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole process
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - likewise


def listen(port: int, environment: Environment, exit_code: int) -> socket.socket:
    """Listen on a port, of every IPv4 address unless the environment names one. Raises ListenError."""
    address = environment.listen_address
    try:
        family = (
            socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0] if address else socket.AF_INET
        )
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if environment.tcp_buffer_bytes is not None:  # accepted connections inherit it
                for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                    listener.setsockopt(socket.SOL_SOCKET, option, environment.tcp_buffer_bytes)
            listener.bind((address, port))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or str(error)
        if address and getattr(error, "errno", None) != errno.EADDRINUSE:
            words = f"{LISTEN} is {address!r}: {words}; set it to an address of this machine, or to none"
        else:
            words = f"{words}; choose another port, or see who has it already"
        raise ListenError(exit_code, port, words) from None
    return listener


def take_inherited_connection(exit_code: int) -> socket.socket:
    """Take the connection that stands on descriptor 0, and put the null device on 0, 1 and 2. Raises StartError.

    From then on nothing that is printed can reach the peer.
    """
    try:
        connection = socket.socket(fileno=os.dup(0))
        connection.getpeername()  # there is none where a socket only listens, or is for datagrams
        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in _STANDARD_DESCRIPTORS:
            os.dup2(null, descriptor)
        if null not in _STANDARD_DESCRIPTORS:
            os.close(null)
    except OSError as error:
        words = f"standard input is no connection of a super server: {error.strerror}; start it from inetd"
        raise StartError(exit_code, words) from None
    os.set_inheritable(connection.fileno(), False)  # noqa: FBT003 - the standard library's own signature
    return connection
