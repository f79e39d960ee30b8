"""`dcmrecv` from its command line to its exit code."""

import os
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import Final

from stowkeeper.dcmtk.dcmrecv_options import (
    DcmrecvExit,
    DcmrecvOptions,
    StorageMode,
    dcmrecv_table,
    evaluate_dcmrecv,
)
from stowkeeper.dcmtk.dcmrecv_receiver import LOGGER, PROGRAM, DcmrecvReceiver
from stowkeeper.dcmtk.encoding.form import DCMRECV_FORM
from stowkeeper.dcmtk.environment import Environment, read_dictionary
from stowkeeper.dcmtk.listening import listen
from stowkeeper.dcmtk.negotiation import DcmrecvRules
from stowkeeper.dcmtk.oflog.loggers import Loggers
from stowkeeper.dcmtk.process_models import end_by_signals, serve_in_turn
from stowkeeper.dcmtk.reception import Keeping
from stowkeeper.dcmtk.serving import (
    Housekeeping,
    acceptor_profile,
    association_limits,
    handshake_line,
    shortest,
)
from stowkeeper.dcmtk.start_checks import StartError, check_dcmrecv_directory, check_dcmrecv_port
from stowkeeper.dcmtk.tls_setup import prepare_tls, write_seed
from stowkeeper.dcmtk.usage import ExitWith, prepare
from stowkeeper.net.serial_server import SerialServer
from stowkeeper.net.tls_ciphers import list_ciphers
from stowkeeper.net.tls_profiles import available_profiles

SOCKET_TIMEOUT: Final = 60
"""Seconds that a peer may be silent; there is no option for it."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line, without the program's name; return the exit code. Serves until a signal ends the process."""
    with Loggers(PROGRAM) as loggers:
        try:
            return _run(arguments, loggers)
        except StartError as error:
            loggers.get(LOGGER).critical(str(error))
            return error.exit_code


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

        sys.stdout.write(explain_dcmrecv(options))
        return DcmrecvExit.NO_ERROR
    _serve(options, loggers)
    return DcmrecvExit.NO_ERROR


def _serve(options: DcmrecvOptions, loggers: Loggers) -> None:
    log = loggers.get(LOGGER)
    for warning in options.warnings:
        log.warning(warning)
    profile = None
    if options.profile is not None:
        profile = acceptor_profile(options.profile, log, DcmrecvExit.ASSOCIATION_PROFILE)
    check_dcmrecv_directory(options)
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
    server = SerialServer(
        DcmrecvReceiver(options, rules, keeping if stores else None, loggers),
        association_limits(
            maximum_length=options.network.max_pdu,
            request_seconds=options.network.acse_timeout,
            idle_seconds=silence,
            message_seconds=silence,
            send_seconds=SOCKET_TIMEOUT,
        ),
        tls,
        handshake_ended=partial(handshake_line, log),
        meanwhile=Housekeeping(options.directory, log, stores=stores).do,
    )

    def serve(connection: socket.socket) -> None:
        server.serve(connection)
        write_seed(options.tls, log)

    end_by_signals()
    serve_in_turn(listener, server, serve, log)
