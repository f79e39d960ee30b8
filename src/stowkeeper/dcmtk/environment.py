"""The environment variables that both programs heed: DCMTK's, and some of our own."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stowkeeper.dcmtk.encoding.dictionary import Dictionary, DictionaryError
from stowkeeper.dcmtk.limits import DICTIONARY_FILE_BYTES_MAX, INTEGER_MAX
from stowkeeper.dcmtk.oflog.loggers import Logger

DICTIONARY_PATH: Final = "DCMDICTPATH"
TCP_BUFFER_LENGTH: Final = "TCP_BUFFER_LENGTH"
KEEP_REFUSED: Final = "STOWKEEPER_KEEP_REFUSED"
SYNC: Final = "STOWKEEPER_SYNC"
LISTEN: Final = "STOWKEEPER_LISTEN"

TCP_BUFFER_BYTES_OF_ZERO: Final = 65_536
"""What a buffer length of 0 stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the environment asks for.

    `dictionary_files` are empty for the dictionary that the product carries. `tcp_buffer_bytes` is None for the system's
    own choice. An empty `listen_address` is every IPv4 address of the machine.
    """

    dictionary_files: tuple[str, ...] = ()
    tcp_buffer_bytes: int | None = None
    keeps_refused: bool = False
    synchronizes: bool = False
    listen_address: str = ""

    @classmethod
    def of(cls, variables: Mapping[str, str], log: Logger) -> "Environment":
        """Read the variables. A number that is none is reported and not heeded."""
        return cls(
            dictionary_files=tuple(
                path for path in variables.get(DICTIONARY_PATH, "").split(os.pathsep) if path
            ),
            tcp_buffer_bytes=_tcp_buffer_bytes(variables.get(TCP_BUFFER_LENGTH, ""), log),
            keeps_refused=_is_on(variables.get(KEEP_REFUSED, "")),
            synchronizes=_is_on(variables.get(SYNC, "")),
            listen_address=variables.get(LISTEN, "").strip(),
        )


def _is_on(value: str) -> bool:
    return value.strip().lower() not in {"", "0", "no", "off", "false"}


def _tcp_buffer_bytes(value: str, log: Logger) -> int | None:
    if not value:
        return None
    try:
        count = int(value)
    except ValueError:
        log.warning("%s is no number, so the system chooses: %r", TCP_BUFFER_LENGTH, value)
        return None
    return min(count, INTEGER_MAX) if count > 0 else TCP_BUFFER_BYTES_OF_ZERO


def read_dictionary(paths: tuple[str, ...], log: Logger) -> Dictionary | None:
    """Read dictionary files as one; None where there are none. A file that cannot be used is reported and left out."""
    texts = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                data = file.read(DICTIONARY_FILE_BYTES_MAX + 1)
            if len(data) > DICTIONARY_FILE_BYTES_MAX:
                most = DICTIONARY_FILE_BYTES_MAX
                log.warning("%s: %s is not used: it is longer than %d bytes", DICTIONARY_PATH, path, most)
                continue
            text = data.decode("latin-1")
            Dictionary.read(text)
        except OSError as error:
            log.warning("%s: %s cannot be read: %s", DICTIONARY_PATH, path, error.strerror)
        except DictionaryError as error:
            log.warning("%s: %s is not used: %s", DICTIONARY_PATH, path, error)
        else:
            texts.append(text)
    if paths and not texts:
        log.warning("%s names no dictionary that can be used, so the shipped one is", DICTIONARY_PATH)
    return Dictionary.read("\n".join(texts)) if texts else None
