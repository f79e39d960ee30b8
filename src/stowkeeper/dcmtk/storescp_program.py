"""`storescp` from its command line to its exit code."""

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from stowkeeper.dcmtk.encoding.dictionary import shipped_dictionary
from stowkeeper.dcmtk.encoding.form import STORESCP_FORM, Form
from stowkeeper.dcmtk.encoding.form import GroupLengths as FormGroupLengths
from stowkeeper.dcmtk.environment import LISTEN, Environment, read_dictionary
from stowkeeper.dcmtk.grammar import CommandLine
from stowkeeper.dcmtk.host_access import check_host_access
from stowkeeper.dcmtk.host_names import PeerHost
from stowkeeper.dcmtk.listening import fill_standard_descriptors, listen, take_inherited_connection
from stowkeeper.dcmtk.log_lines import Condition
from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.negotiation import StorescpRules
from stowkeeper.dcmtk.network_options import ProfileChoice
from stowkeeper.dcmtk.oflog.loggers import Loggers
from stowkeeper.dcmtk.process_models import (
    Children,
    end_by_signals,
    serve_forking,
    serve_in_turn,
    serve_one,
)
from stowkeeper.dcmtk.profile_file import NegotiationProfile
from stowkeeper.dcmtk.receiver import say
from stowkeeper.dcmtk.reception import Keeping
from stowkeeper.dcmtk.serving import (
    Housekeeping,
    acceptor_profile,
    association_limits,
    shortest,
)
from stowkeeper.dcmtk.start_checks import (
    ListenError,
    StartError,
    check_storescp_directory,
    check_storescp_port,
)
from stowkeeper.dcmtk.storescp_lines import STORESCP_LOGGER, StorescpLines
from stowkeeper.dcmtk.storescp_options import (
    GroupLengths,
    ProcessModel,
    SequenceLengths,
    SortMode,
    StorescpExit,
    StorescpOptions,
    WriteTransferSyntax,
    evaluate_storescp,
)
from stowkeeper.dcmtk.storescp_receiver import PROGRAM, StorescpReceiver
from stowkeeper.dcmtk.storescp_table import storescp_table
from stowkeeper.dcmtk.tls_setup import prepare_tls, write_seed
from stowkeeper.dcmtk.usage import ExitWith, prepare
from stowkeeper.dicom.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from stowkeeper.net.addresses import plain_address
from stowkeeper.net.serial_server import TICK_SECONDS, SerialServer
from stowkeeper.net.tls_ciphers import list_ciphers
from stowkeeper.net.tls_profiles import available_profiles

_IMPATIENT_TICK_SECONDS: Final = 0.05
"""How often is looked whether a study is over that is over as soon as nothing comes (-tos 0)."""

_TRANSFER_SYNTAXES: Final = {
    WriteTransferSyntax.SAME: None,
    WriteTransferSyntax.EXPLICIT_LITTLE: EXPLICIT_VR_LITTLE_ENDIAN,
    WriteTransferSyntax.EXPLICIT_BIG: EXPLICIT_VR_BIG_ENDIAN,
    WriteTransferSyntax.IMPLICIT_LITTLE: IMPLICIT_VR_LITTLE_ENDIAN,
    WriteTransferSyntax.DEFLATED: DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
}
_GROUP_LENGTHS: Final = {
    GroupLengths.RECALCULATE: FormGroupLengths.RECALCULATE,
    GroupLengths.CREATE: FormGroupLengths.CREATE,
    GroupLengths.REMOVE: FormGroupLengths.REMOVE,
}


def run(arguments: Sequence[str]) -> int:
    """Run a command line, without the program's name; return the exit code. Serves until a signal ends the process."""
    fill_standard_descriptors()
    with Loggers(PROGRAM) as loggers:
        program = _Program(loggers)
        try:
            return program.run(arguments)
        except ListenError as error:
            say(loggers, StorescpLines(level=LogLevel.FATAL).cannot_listen(error.reason))
            return error.exit_code
        except StartError as error:
            loggers.get(STORESCP_LOGGER).critical(str(error))
            return error.exit_code


class _Program:
    """One run."""

    def __init__(self, loggers: Loggers) -> None:
        self._loggers = loggers
        self._log = loggers.get(STORESCP_LOGGER)
        self._profile: NegotiationProfile | None = None
        self._inherited: socket.socket | None = None
        self._not_inherited: StartError | None = None

    def run(self, arguments: Sequence[str]) -> int:
        table = storescp_table(frozenset(available_profiles()))
        options = prepare(
            table,
            arguments,
            lambda command_line: evaluate_storescp(
                table,
                command_line,
                start_logging=self._loggers.start,
                load_profile=self._load_profile,
                take_connection=lambda: self._take_connection(command_line),
            ),
            list_ciphers,
        )
        if isinstance(options, ExitWith):
            sys.stdout.write(options.stdout)
            sys.stderr.write(options.stderr)
            return options.code
        if options.explain:
            from stowkeeper.dcmtk.explaining import explain_storescp  # noqa: PLC0415 - for this alone

            sys.stdout.write(explain_storescp(options, listen_address=os.environ.get(LISTEN, "")))
            return StorescpExit.NO_ERROR
        for warning in options.warnings:
            self._log.warning(warning)
        self._serve(options)
        return StorescpExit.NO_ERROR

    def _load_profile(self, choice: ProfileChoice) -> None:
        self._profile = acceptor_profile(choice, self._log, StorescpExit.FAILURE)

    def _take_connection(self, command_line: CommandLine) -> None:
        if not command_line.has("--explain"):
            try:
                self._inherited = take_inherited_connection(StorescpExit.INETD)
            except StartError as error:
                self._not_inherited = error  # what is wrong with the options comes first

    def _serve(self, options: StorescpOptions) -> None:
        if self._not_inherited is not None:
            raise self._not_inherited
        check_storescp_port(options)
        check_storescp_directory(options)
        environment = Environment.of(os.environ, self._log)
        listener = None
        if options.port is not None:
            listener = listen(options.port, environment, StorescpExit.FAILURE)
        tls = None if options.tls is None else prepare_tls(options.tls, self._log, StorescpExit.FAILURE)
        housekeeping = Housekeeping(
            options.output.directory,
            self._log,
            stores=not options.trial.ignore,
        )
        receiver = StorescpReceiver(
            options,
            _rules(options, self._profile),
            None if options.trial.ignore else self._keeping(options, environment),
            self._loggers,
            _lines(options, self._log.effective_level),
            keeps_refused=environment.keeps_refused,
        )
        study_timeout = options.events.study_timeout
        limits = association_limits(
            maximum_length=_even(options.network.max_pdu),
            request_seconds=options.network.acse_timeout,
            # While a study's end is waited for, silence between objects is no fault.
            idle_seconds=options.socket_timeout if study_timeout is None else None,
            message_seconds=shortest(options.socket_timeout, options.network.dimse_timeout),
            send_seconds=options.socket_timeout,
        )

        children = Children()

        def meanwhile() -> None:
            receiver.meanwhile()
            housekeeping.do()
            children.reap()

        server = SerialServer(
            receiver,
            limits,
            tls,
            handshake_ended=receiver.handshake_ended,
            meanwhile=meanwhile,
            tick_seconds=_IMPATIENT_TICK_SECONDS if study_timeout == 0 else TICK_SECONDS,
        )

        def serve(connection: socket.socket) -> None:
            if options.process_model is ProcessModel.FORK:
                receiver.child_pid = os.getpid()
                housekeeping.leave_it()
            if options.access_control and not self._is_admitted(connection, options):
                connection.close()
                return
            server.serve(connection)
            write_seed(options.tls, self._log)

        end_by_signals()
        if self._inherited is not None:
            serve_one(self._inherited, server, serve)
        elif listener is not None and options.process_model is ProcessModel.FORK:
            if not (options.output.bit_preserving or environment.dictionary_files):
                shipped_dictionary()  # once for all children, each of which would load it else
            serve_forking(listener, server, serve, self._log, self._loggers, children)
        elif listener is not None:
            serve_in_turn(listener, server, serve, self._log)

    def _keeping(self, options: StorescpOptions, environment: Environment) -> Keeping:
        output = options.output
        return Keeping(
            directory=output.directory or os.curdir,
            form=None if output.bit_preserving else _form(options),
            with_meta=output.with_file_meta,
            keeps_source_ae_title=True,
            dictionary=read_dictionary(environment.dictionary_files, self._log),
            synchronizes=environment.synchronizes,
        )

    def _is_admitted(self, connection: socket.socket, options: StorescpOptions) -> bool:
        """Ask the access tables of the machine (+ac)."""
        try:
            peer = connection.getpeername()
        except OSError:
            return False
        address = plain_address(peer[0] if peer else "")
        host = PeerHost(address, looks_up=options.network.host_lookup)
        decision = check_host_access(host.as_client())
        for remark in decision.remarks:
            self._log.warning(remark)
        if not decision.is_admitted:
            words = f"denied connection from {host.full_name or 'unknown'} ({address}): {decision.reason}"
            lines = StorescpLines(level=LogLevel.ERROR)
            say(self._loggers, lines.receiving_failed(Condition.TCP_WRAPPER, words))
        return decision.is_admitted


def _even(length: int) -> int:
    """Return the length of PDUs that is announced: an even one."""
    return length // 2 * 2


def _rules(options: StorescpOptions, profile: NegotiationProfile | None) -> StorescpRules:
    return StorescpRules(
        profile=profile,
        preference=options.preference,
        promiscuous=options.promiscuous,
        refuse=options.trial.refuse,
        reject_without_implementation_class=options.trial.reject_without_implementation_class,
        maximum_length=_even(options.network.max_pdu),
    )


def _lines(options: StorescpOptions, level: LogLevel) -> StorescpLines:
    sorts_by_name = options.output.sort is SortMode.PATIENT_NAME
    return StorescpLines(
        level=level,
        shows_parameters=options.log.presentation_contexts,
        directory=options.output.directory if sorts_by_name else None,
    )


def _form(options: StorescpOptions) -> Form:
    output = options.output
    padding = output.padding
    return replace(
        STORESCP_FORM,
        transfer_syntax=_TRANSFER_SYNTAXES[output.transfer_syntax],
        group_length=_GROUP_LENGTHS[output.group_lengths],
        explicit_lengths=output.sequence_lengths is SequenceLengths.EXPLICIT,
        padding=None if padding is None else (padding.file, padding.item),
        new_vr=output.new_vrs,
        convert_un=output.convert_un,
        compression_level=output.compression_level,
        with_meta=output.with_file_meta,
    )
