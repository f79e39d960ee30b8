"""Trying rules: what they would do with what is in the archive. It is read page by page, and nothing is changed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from stowkeeper.database.engine import Database
from stowkeeper.database.limits import ROWS_PER_PAGE
from stowkeeper.services.arrivals import arrivals_of_study, every_arrival_with_study, key_before
from stowkeeper.services.conditions import Arrival
from stowkeeper.services.forwarding.rules import ForwardingRule, choices, fitting


class Tally:
    """Instances, counted, with their bytes and their studies.

    Which studies are in it takes a bit for each study that the archive ever had: a million are 125 kB.
    """

    def __init__(self) -> None:
        self.instances = 0
        self.bytes = 0
        self.studies = 0
        self._seen = bytearray()

    def add(self, study_key: int, size: int) -> None:
        """Count an instance; the study 0 is none."""
        self.instances += 1
        self.bytes += size
        place, bit = divmod(study_key, 8)
        if place >= len(self._seen):
            self._seen.extend(bytes(place + 1 - len(self._seen)))
        if study_key and not self._seen[place] >> bit & 1:
            self._seen[place] |= 1 << bit
            self.studies += 1


@dataclass(slots=True, kw_only=True)
class RuleTrial:
    """What a rule would do. `fits` is what meets its conditions, `to` what goes to each of its destinations by this rule.

    `not_sent_back` counts for each of them the instances that fit and came from there.
    """

    rule: ForwardingRule
    fits: Tally = field(default_factory=Tally)
    to: dict[str, Tally] = field(default_factory=dict)
    not_sent_back: dict[str, int] = field(default_factory=dict)


class Trial:
    """What rules would do with the instances that are put to them. `came_from` tells where one came from (see `destinations`)."""

    def __init__(
        self, rules: Sequence[ForwardingRule], came_from: Callable[[Arrival], frozenset[str]]
    ) -> None:
        self.all = Tally()
        self.unmatched = Tally()
        self.rules = [
            RuleTrial(rule=rule, to={destination: Tally() for destination in rule.to}) for rule in rules
        ]
        self._by_name = {found.rule.name: found for found in self.rules}
        self._rules = rules
        self._came_from = came_from

    def put(self, study_key: int, arrival: Arrival) -> None:
        """Put an instance to the rules."""
        size = arrival.file_size
        self.all.add(study_key, size)
        rules = fitting(self._rules, arrival)
        if not rules:
            self.unmatched.add(study_key, size)
            return
        came_from = self._came_from(arrival)
        for rule in rules:
            found = self._by_name[rule.name]
            found.fits.add(study_key, size)
            for destination in came_from & found.to.keys():
                found.not_sent_back[destination] = found.not_sent_back.get(destination, 0) + 1
        for choice in choices(rules, came_from):
            self._by_name[choice.rule.name].to[choice.destination].add(study_key, size)


def keywords_of(rules: Sequence[ForwardingRule]) -> tuple[str, ...]:
    """Return the attributes that rules ask for."""
    return tuple(dict.fromkeys(keyword for rule in rules for keyword in rule.conditions.attributes))


def kept_arrivals(
    database: Database, keywords: Sequence[str], *, study_instance_uid: str = "", received_from: str = ""
) -> Iterator[tuple[int, Arrival]]:
    """Yield the current versions, or those of a study, each with the key of its study.

    `received_from` is the beginning of a time in ISO 8601: only what came from then on. A page is read at a time, each from a
    short look of its own.
    """
    if study_instance_uid:
        with database.read() as connection:
            of_study = arrivals_of_study(connection, study_instance_uid, keywords)
        yield from ((1, arrival) for arrival in of_study if arrival.received_at >= received_from)
        return
    after: int | None = 0
    if received_from:
        with database.read() as connection:
            after = key_before(connection, received_from)
    while after is not None:
        with database.read() as connection:
            page = every_arrival_with_study(connection, after, ROWS_PER_PAGE, keywords)
        yield from (found for found in page if found[1].received_at >= received_from)
        after = page[-1][1].version_key if len(page) == ROWS_PER_PAGE else None
