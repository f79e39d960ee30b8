"""The peers: those of the settings and those of the database, as one book that tells who calls and how to call whom.

What the settings say is read-only here and goes first. Peers of the database are put in by commands and by HTTP; every
process on the archive takes note of them within PEERS_LOOK_SECONDS.

Who calls is found by the calling AE title and the address of an association, among the peers of the settings first.
Where several match, the one that is called at this very address holds; then the first one in the order of the
settings file, or of the database. A peer whose `host` is a name is told by AE title and `addresses` alone: a name is
never looked up to find out who calls, since that could take long, and whoever answers for names could choose who is
meant.
"""

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final, Self

import structlog
from sqlalchemy import Connection, delete, func, insert, select, update

from stowkeeper.archive import audit
from stowkeeper.database.engine import Database, DatabaseError, Transaction
from stowkeeper.database.schema import peers as peers_table
from stowkeeper.services.limits import PEER_ANSWERS_REMEMBERED, PEERS_LOOK_SECONDS, PEERS_MAX
from stowkeeper.services.peer_definition import (
    Address,
    Peer,
    PeerDefinitionError,
    parsed_address,
)

__all__ = [
    "Peer",
    "PeerBook",
    "PeerBookError",
    "PeerDefinitionError",
    "PeerExistsError",
    "PeerNotFoundError",
    "PeerReadOnlyError",
    "PeersFullError",
    "stored_peers",
]

log = structlog.get_logger("stowkeeper.peers")


class PeerBookError(Exception):
    """A peer cannot be had or changed; the text is a sentence for people."""


class PeerNotFoundError(PeerBookError):
    """There is no peer of that name."""


class PeerReadOnlyError(PeerBookError):
    """The peer stands in the settings, where alone it can be changed."""


class PeerExistsError(PeerBookError):
    """There is a peer of that name already, and it was not to be changed."""


class PeersFullError(PeerBookError):
    """There are as many peers in the database as there may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """What the book says at a moment. `answers` remembers who called, for as long as the page holds.

    `stored` are all peers of the database, `others` those of them whose name the settings leave to them.
    """

    configured: tuple[Peer, ...]
    stored: tuple[Peer, ...] = ()
    others: tuple[Peer, ...] = ()
    answers: dict[tuple[str, str], Peer | None] = field(default_factory=dict)

    @classmethod
    def of(cls, configured: tuple[Peer, ...], stored: tuple[Peer, ...]) -> Self:
        names = {peer.name for peer in configured}
        others = tuple(peer for peer in stored if peer.name not in names)
        return cls(configured=configured, stored=stored, others=others)


class PeerBook:
    """All peers. Every method may be called from any thread.

    `matching` answers from memory at once, for an event loop. `all`, `find`, `refresh`, `save`, `change` and `discard` read or
    write the database: on an event loop call them in a thread. While the book is open (`start`) a thread of its own
    takes note of what other processes change.
    """

    def __init__(self, configured: Sequence[Peer], database: Database) -> None:
        """Make the book and read the database. Raises DatabaseUnavailable."""
        self._database = database
        self._lock = threading.Lock()
        self._page = _Page(configured=_read_only(configured))
        self._rows: tuple[tuple[str, str], ...] = ()
        self._looks = count(1)
        self._last_look = 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.refresh()

    # Asking.

    def matching(self, calling_ae_title: str, address: str) -> Peer | None:
        """Return the peer whose association this is, by calling AE title and IP address; None for a stranger.

        From memory and at once; what changed in the database counts PEERS_LOOK_SECONDS later at the latest.
        """
        page = self._page
        key = (calling_ae_title, address)
        try:
            return page.answers[key]
        except KeyError:
            pass
        parsed = parsed_address(address)
        found = _best(page.configured, calling_ae_title, parsed)
        if found is None:
            found = _best(page.others, calling_ae_title, parsed)
        if len(page.answers) >= PEER_ANSWERS_REMEMBERED:
            page.answers.clear()  # whoever makes up AE titles pays for it with a moment of ours, and no memory
        page.answers[key] = found
        return found

    def all(self) -> list[Peer]:
        """Return all peers, those of the settings first. Raises DatabaseUnavailable."""
        self.refresh()
        page = self._page
        return [*page.configured, *page.others]

    def known(self) -> tuple[Peer, ...]:
        """Return all peers from memory and at once, as `matching` knows them."""
        page = self._page
        return (*page.configured, *page.others)

    def find(self, name: str) -> Peer | None:
        """Return the peer of a name; None when there is none. Raises DatabaseUnavailable."""
        return next((peer for peer in self.all() if peer.name == name), None)

    # Changing.

    def put(self, transaction: Transaction, peer: Peer, who: str, *, may_replace: bool = True) -> bool:
        """Add a peer to the database, or change the one of its name; return whether it is a new one.

        The book knows it after the next `refresh` behind the end of the transaction. `who` is for the audit trail. When it
        raises, let the transaction fail.

        Raises:
            PeerReadOnlyError: the settings have a peer of this name.
            PeerExistsError: there is one, and `may_replace` is false.
            PeersFullError: it would be one too many.

        """
        self._check_writable(peer.name)
        definition = json.dumps(replace(peer, is_read_only=False, profile=None).to_json())
        values = {"definition": definition, "changed_at": transaction.at, "changed_by": who}
        changed = transaction.execute(
            update(peers_table).where(peers_table.c.name == peer.name).values(**values)
        )
        is_new = not changed.rowcount
        if not is_new and not may_replace:
            raise PeerExistsError(
                f"there is a peer {peer.name!r} already: ask for it to be replaced if that is meant"
            )
        if is_new:
            there = transaction.execute(select(func.count()).select_from(peers_table)).scalar_one()
            if there >= PEERS_MAX:
                raise PeersFullError(f"there are {there} peers, and no more are possible: remove some first")
            transaction.execute(insert(peers_table).values(name=peer.name, **values))
        audit.note(transaction, who, "peer added" if is_new else "peer changed", peer.name, peer.where)
        return is_new

    def remove(self, transaction: Transaction, name: str, who: str) -> None:
        """Remove a peer from the database; the book knows it as with `put`.

        Raises:
            PeerReadOnlyError: it stands in the settings.
            PeerNotFoundError: there is none of this name.

        """
        self._check_writable(name)
        removed = transaction.execute(delete(peers_table).where(peers_table.c.name == name))
        if not removed.rowcount:
            raise PeerNotFoundError(f"there is no peer {name!r}: `stowkeeper peers ls` lists them")
        audit.note(transaction, who, "peer removed", name)

    def save(self, peer: Peer, who: str, *, may_replace: bool = True) -> bool:
        """Do `put` in a transaction of its own and know it at once; raises DatabaseUnavailable too."""
        with self._database.write() as transaction:
            is_new = self.put(transaction, peer, who, may_replace=may_replace)
        self.refresh()
        return is_new

    def change(self, name: str, changed: Callable[[Peer | None], Peer], who: str) -> None:
        """Put in what `changed` makes of the peer of a name as the database has it, or of None: nobody changes it meanwhile.

        Raises as `save` does, and what `changed` raises; then nothing is changed.
        """
        with self._database.write() as transaction:
            stored = stored_peers(transaction.connection)
            known = next((peer for peer in stored if peer.name == name), None)
            self.put(transaction, changed(known), who)
        self.refresh()

    def discard(self, name: str, who: str) -> None:
        """Do `remove` in a transaction of its own and know it at once; raises DatabaseUnavailable too."""
        with self._database.write() as transaction:
            self.remove(transaction, name, who)
        self.refresh()

    def replace_configured(self, configured: Sequence[Peer]) -> None:
        """Take the peers of settings that were read anew. At once: it waits for no disk."""
        with self._lock:
            self._page = _Page.of(_read_only(configured), self._page.stored)

    def refresh(self) -> None:
        """Take note of what the database says now. Raises DatabaseUnavailable; then the book stays as it is."""
        number = next(self._looks)
        with self._database.read() as connection:
            rows = _rows(connection)
        with self._lock:
            if number < self._last_look:
                return  # another thread looked later than this one
            self._last_look = number
            if rows != self._rows:
                self._rows = rows
                self._page = _Page.of(self._page.configured, _decoded(rows))

    # Looking from time to time.

    def start(self) -> None:
        """Take note of what other processes change, from now on."""
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; the book can still be asked. Twice is fine."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        is_failing = False
        while not self._closing.wait(PEERS_LOOK_SECONDS):
            try:
                self.refresh()
            except DatabaseError as error:
                if not is_failing:
                    log.warning("error", what="the peers cannot be read anew", reason=str(error))
                is_failing = True
            except Exception:
                log.exception("error", what="the peers cannot be read anew")
                is_failing = True
            else:
                is_failing = False

    def _check_writable(self, name: str) -> None:
        if any(peer.name == name for peer in self._page.configured):
            raise PeerReadOnlyError(
                f"the peer {name!r} stands in the settings file: change it there, or use another name"
            )


def stored_peers(connection: Connection) -> tuple[Peer, ...]:
    """Return the peers of the database in the order in which they were added."""
    return _decoded(_rows(connection))


def _read_only(configured: Sequence[Peer]) -> tuple[Peer, ...]:
    return tuple(replace(peer, is_read_only=True) for peer in configured)


def _best(candidates: Iterable[Peer], calling_ae_title: str, address: Address | None) -> Peer | None:
    """Return the peer that fits best, the first one among equals."""
    best: tuple[int, Peer] | None = None
    for peer in candidates:
        standing = peer.standing(calling_ae_title, address)
        if standing is not None and (best is None or standing < best[0]):
            best = (standing, peer)
    return None if best is None else best[1]


_ROWS: Final = select(peers_table.c.name, peers_table.c.definition).order_by(peers_table.c.peer_key)


def _rows(connection: Connection) -> tuple[tuple[str, str], ...]:
    return tuple((row.name, row.definition) for row in connection.execute(_ROWS))


def _decoded(rows: Iterable[tuple[str, str]]) -> tuple[Peer, ...]:
    """Return the peers that rows define; one that cannot be read is left out, and the log says so."""
    found = []
    for name, definition in rows:
        try:
            value = json.loads(definition)
            found.append(Peer.from_json({**value, "name": name} if isinstance(value, Mapping) else value))
        except ValueError as error:
            log.error("error", what="a peer of the database cannot be read", peer=name, reason=str(error))
    return tuple(found)
