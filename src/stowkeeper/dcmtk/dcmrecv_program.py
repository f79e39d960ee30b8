"""`dcmrecv` from its command line to its exit code."""

import os
import socket
import sys
from collections.abc import Sequence
from typing import Final

from stowkeeper.dcmtk.dcmrecv_lines import DCMRECV_LOGGER, NETWORK_LOGGER, DcmrecvLines
from stowkeeper.dcmtk.dcmrecv_options import (
    DcmrecvExit,
    DcmrecvOptions,
    StorageMode,
    dcmrecv_table,
    evaluate_dcmrecv,
)
from stowkeeper.dcmtk.dcmrecv_receiver import PROGRAM, DcmrecvReceiver
from stowkeeper.dcmtk.encoding.form import DCMRECV_FORM
from stowkeeper.dcmtk.environment import LISTEN, Environment, read_dictionary
from stowkeeper.dcmtk.listening import fill_standard_descriptors, listen
from stowkeeper.dcmtk.log_lines import Lines
from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.negotiation import DcmrecvRules
from stowkeeper.dcmtk.oflog.loggers import Loggers
from stowkeeper.dcmtk.process_models import end_by_signals, serve_in_turn
from stowkeeper.dcmtk.receiver import say
from stowkeeper.dcmtk.reception import Keeping
from stowkeeper.dcmtk.serving import (
    Housekeeping,
    acceptor_profile,
    association_limits,
    shortest,
)
from stowkeeper.dcmtk.start_checks import ListenError, StartError, check_dcmrecv_directory, check_dcmrecv_port
from stowkeeper.dcmtk.tls_setup import prepare_tls, write_seed
from stowkeeper.dcmtk.usage import ExitWith, prepare
from stowkeeper.net.serial_server import SerialServer
from stowkeeper.net.tls_ciphers import list_ciphers
from stowkeeper.net.tls_profiles import available_profiles

SOCKET_TIMEOUT: Final = 60
"""Seconds that a peer may be silent; there is no option for it."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line, without the program's name; return the exit code. Serves until a signal ends the process."""
    fill_standard_descriptors()
    with Loggers(PROGRAM) as loggers:
        try:
            return _run(arguments, loggers)
        except StartError as error:
            say(loggers, _fatal_lines(error, DcmrecvLines(level=LogLevel.FATAL)))
            return error.exit_code


def _fatal_lines(error: StartError, lines: DcmrecvLines) -> Lines:
    words = str(error)
    if isinstance(error, ListenError):
        return lines.cannot_listen(error.port, error.reason)
    if error.exit_code == DcmrecvExit.ASSOCIATION_PROFILE:
        return lines.wrong_profile(words)
    if error.exit_code == DcmrecvExit.OUTPUT_DIRECTORY:
        return lines.wrong_directory(words)
    return lines.cannot_start_tls(words)


def _run(arguments: Sequence[str], loggers: Loggers) -> int:
    table = dcmrecv_table(frozenset(available_profiles()))
    options = prepare(
        table,
        arguments,
        lambda command_line: evaluate_dcmrecv(table, command_line, start_logging=loggers.start),
        list_ciphers,
    )
    if isinstance(options, ExitWith):
        sys.stdout.write(options.stdout)
        sys.stderr.write(options.stderr)
        return options.code
    if options.explain:
        from stowkeeper.dcmtk.explaining import explain_dcmrecv  # noqa: PLC0415 - for this alone

        sys.stdout.write(explain_dcmrecv(options, listen_address=os.environ.get(LISTEN, "")))
        return DcmrecvExit.NO_ERROR
    _serve(options, loggers)
    return DcmrecvExit.NO_ERROR


def _serve(options: DcmrecvOptions, loggers: Loggers) -> None:
    log = loggers.get(DCMRECV_LOGGER)
    lines = DcmrecvLines(
        level=loggers.get(NETWORK_LOGGER).effective_level,
        shows_parameters=options.log.presentation_contexts,
    )
    say(loggers, lines.configuring())
    profile = None
    if options.profile is None:
        say(loggers, lines.no_profile())
    else:
        profile = acceptor_profile(options.profile, log, DcmrecvExit.ASSOCIATION_PROFILE)
    check_dcmrecv_directory(options)
    say(loggers, lines.starting())
    tls = None if options.tls is None else prepare_tls(options.tls, log, DcmrecvExit.TRANSPORT_LAYER)
    check_dcmrecv_port(options)
    environment = Environment.of(os.environ, log)
    listener = listen(options.port, environment, DcmrecvExit.CANNOT_LISTEN)
    stores = options.storage_mode is not StorageMode.IGNORE
    is_bit_preserving = options.storage_mode is StorageMode.BIT_PRESERVING
    keeping = Keeping(
        directory=options.directory or os.curdir,
        form=None if is_bit_preserving else DCMRECV_FORM,
        with_meta=True,
        keeps_source_ae_title=is_bit_preserving,
        dictionary=read_dictionary(environment.dictionary_files, log),
        synchronizes=environment.synchronizes,
    )
    rules = DcmrecvRules(profile=profile, ae_title=options.ae_title, maximum_length=options.network.max_pdu)
    silence = shortest(SOCKET_TIMEOUT, options.network.dimse_timeout)
    receiver = DcmrecvReceiver(options, rules, keeping if stores else None, loggers, lines)
    housekeeping = Housekeeping(options.directory, log, stores=stores)

    def meanwhile() -> None:
        receiver.meanwhile()
        housekeeping.do()

    server = SerialServer(
        receiver,
        association_limits(
            maximum_length=options.network.max_pdu,
            request_seconds=options.network.acse_timeout,
            idle_seconds=silence,
            message_seconds=silence,
            send_seconds=SOCKET_TIMEOUT,
        ),
        tls,
        handshake_ended=receiver.handshake_ended,
        meanwhile=meanwhile,
    )

    def serve(connection: socket.socket) -> None:
        server.serve(connection)
        write_seed(options.tls, log)

    end_by_signals()
    serve_in_turn(listener, server, serve, log)
