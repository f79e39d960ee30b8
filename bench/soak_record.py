"""What a soak sent, and what the server answered and told of it: the whole truth that its archive is held against at the end."""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from blake3 import blake3

from support.instances import Instance, make_instance

Version = tuple[str, str]
"""SOP Instance UID, and the digest of the data set: one version of an instance."""


def digest_of(data_set: bytes) -> str:
    """Return the digest of a data set as the archive lists it."""
    return blake3(data_set).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What an instance is made from, in place of its bytes: hours of instances fit into memory so."""

    number: int
    study: str
    size: int

    @property
    def uid(self) -> str:
        """Return its SOP Instance UID."""
        return f"1.2.3.{self.number}"

    def instance(self, content: int = 0) -> Instance:
        """Make it; another `content` is another version."""
        return make_instance(
            self.number,
            study=self.study,
            series=f"{self.study}.1",
            size=self.size,
            content=content,
            instance_number=self.number,
        )


class Record:
    """Shared by all players; each method is one step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._study = 0
        self._lasting: list[Sent] = []
        self._removable: list[Sent] = []
        self.answered: set[Version] = set()
        """Versions that were answered Success."""
        self.studies: set[str] = set()
        """Studies of which an instance was answered Success."""
        self.sent: dict[str, set[str]] = {}
        """The digests that were sent of each instance, answered or not."""
        self._lengths: dict[str, int] = {}
        self.removed: set[str] = set()
        """Instances whose removal was asked for; a kill may have come before its answer."""
        self.gone: set[str] = set()
        """Those of them whose removal was answered."""
        self.told: set[str] = set()
        """Instances that the endpoint was told of."""
        self.exported: set[str] = set()
        self.asked: dict[str, set[str]] = {}
        """Storage commitments that were answered Success: what each was asked for."""
        self.counts: Counter[str] = Counter()
        self.surprises: list[str] = []

    def new_study(self) -> str:
        """Return the UID of a study that nobody has sent."""
        with self._lock:
            self._study += 1
            return f"1.2.10.{self._study}"

    def new(self, study: str, size: int) -> Sent:
        """Return an instance that nobody has sent."""
        with self._lock:
            self._number += 1
            return Sent(number=self._number, study=study, size=size)

    def sending(self, instance: Instance) -> None:
        """Note what is about to be sent."""
        with self._lock:
            self.sent.setdefault(instance.sop_instance_uid, set()).add(digest_of(instance.data))
            self._lengths[instance.sop_instance_uid] = len(instance.data)

    def was_sent(self, uid: str, file: bytes) -> bool:
        """Tell whether a file ends with a data set that was sent as this instance; all versions of one are of one length."""
        with self._lock:
            length, digests = self._lengths.get(uid, 0), set(self.sent.get(uid, ()))
        return digest_of(file[len(file) - length :]) in digests

    def has_versions(self, uid: str) -> bool:
        """Tell whether several versions were sent: who sent none of them is told no more than that they are in conflict."""
        with self._lock:
            return len(self.sent.get(uid, ())) > 1

    def answer(self, sent: Sent, instance: Instance, status: int, *, removable: bool = False) -> None:
        """Note the answer to an instance."""
        with self._lock:
            self.counts[f"answered {status:04X}H"] += 1
            if status:
                return
            version = (sent.uid, digest_of(instance.data))
            is_new = all((sent.uid, digest) not in self.answered for digest in self.sent[sent.uid])
            self.answered.add(version)
            self.studies.add(sent.study)
            if is_new:
                (self._removable if removable else self._lasting).append(sent)

    def some(self, chance: Random, count: int = 1) -> list[Sent]:
        """Return instances that were answered Success and that nobody removes; fewer where there are not so many."""
        with self._lock:
            return chance.sample(self._lasting, min(count, len(self._lasting)))

    def take_removable(self, chance: Random) -> Sent | None:
        """Return an instance to remove, and note that it is removed on purpose; None where there is none."""
        with self._lock:
            if not self._removable:
                return None
            place = chance.randrange(len(self._removable))
            self._removable[place], self._removable[-1] = self._removable[-1], self._removable[place]
            taken = self._removable.pop()
            self.removed.add(taken.uid)
            return taken

    def give_back(self, sent: Sent) -> None:
        """Note that an instance was not removed after all."""
        with self._lock:
            self.removed.discard(sent.uid)
            self._removable.append(sent)

    def count(self, what: str, number: int = 1) -> None:
        """Count something for the summary."""
        with self._lock:
            self.counts[what] += number

    def surprise(self, words: str) -> None:
        """Note what must not happen."""
        with self._lock:
            self.surprises.append(words)

    def lost(self, listed: Iterable[Version]) -> set[Version]:
        """Return what was answered Success, not removed on purpose, and is not listed."""
        missing = self.answered - set(listed)
        return {version for version in missing if version[0] not in self.removed}

    def kept_uids(self) -> set[str]:
        """Return the instances that were answered Success and not removed on purpose."""
        return {uid for uid, _ in self.answered} - self.removed
