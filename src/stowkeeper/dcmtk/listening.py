"""Where connections come from: a port, or the descriptor that a super server hands over (inetd)."""

import os
import socket
from typing import Final

from stowkeeper.dcmtk.environment import Environment
from stowkeeper.dcmtk.start_checks import StartError
from stowkeeper.net.limits import BACKLOG

_STANDARD_DESCRIPTORS: Final = (0, 1, 2)


def listen(port: int, environment: Environment, exit_code: int) -> socket.socket:
    """Listen on a port, of every IPv4 address unless the environment names one. Raises StartError."""
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
    except (OSError, OverflowError) as error:
        where = f"port {port}" + (f" of {address}" if address else "")
        words = getattr(error, "strerror", None) or str(error)
        advice = "choose another port, or stop the program that has it"
        raise StartError(exit_code, f"cannot listen on {where}: {words}; {advice}") from None
    return listener


def take_inherited_connection(exit_code: int) -> socket.socket:
    """Take the connection that stands on descriptor 0, and put the null device on 0, 1 and 2. Raises StartError.

    From then on nothing that is printed can reach the peer.
    """
    try:
        connection = socket.socket(fileno=os.dup(0))
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
