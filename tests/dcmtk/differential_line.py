"""A line of the table: a command line, what is sent to it, and the differences that are expected."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from encoding_dictionary import dictionary_text

from support.differential_observation import Observation
from support.differential_run import Trial
from support.differential_steps import NOTHING, Scenario

Pair = tuple[Observation, Observation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A way in which ours is meant to do otherwise than Debian's DCMTK 3.6.7, with its reason.

    `settle` gets what DCMTK's and ours did, checks what ours did instead, and returns both without the difference.
    """

    name: str
    reason: str
    settle: Callable[[Observation, Observation], Pair]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line(Trial):
    """One line of the table."""

    differences: tuple[Difference, ...] = ()

    @property
    def title(self) -> str:
        """Return what a report calls it."""
        return f"{self.tool} {self.options} [{self.scenario.name}]"


def command_lines(text: str) -> list[str]:
    """Return the command lines of a text, which are parted by bars and line ends; `-` is one without options."""
    parts = [part.strip() for row in text.strip().splitlines() for part in row.split(" | ")]
    return ["" if part == "-" else part for part in parts]


def lines(
    tools: str | Sequence[str],
    options: str,
    *scenarios: Scenario,
    given: Mapping[str, bytes | None] | None = None,
    environment: Mapping[str, str] | None = None,
    only_ours: Mapping[str, str] | None = None,
    differences: tuple[Difference, ...] = (),
    is_whole: bool = False,
) -> list[Line]:
    """Return a line for each of some tools, command lines and scenarios."""
    return [
        Line(
            tool=tool,
            options=one,
            scenario=scenario,
            given=given or {},
            environment=environment or {},
            only_ours=only_ours or {},
            differences=differences,
            is_whole=is_whole,
        )
        for tool in ([tools] if isinstance(tools, str) else tools)
        for one in command_lines(options)
        for scenario in scenarios or (NOTHING,)
    ]


KEEP_REFUSED = {"STOWKEEPER_KEEP_REFUSED": "1"}
"""Makes ours leave refused objects where they are, as DCMTK does."""

DICTIONARY = "test.dic"
COMMON_ENVIRONMENT = {"DCMDICTPATH": DICTIONARY}


def profile(
    classes: Sequence[str],
    syntaxes: Sequence[str],
    *,
    roles: Sequence[str] = (),
    extended: Sequence[str] = (),
) -> bytes:
    """Return a file with an association negotiation profile `All`."""
    rows = ["[[TransferSyntaxes]]", "[Any]"]
    rows += [f"TransferSyntax{number} = {uid}" for number, uid in enumerate(syntaxes, 1)]
    rows += ["[[PresentationContexts]]", "[Any]"]
    rows += [f"PresentationContext{number} = {uid}\\Any" for number, uid in enumerate(classes, 1)]
    if roles:
        rows += ["[[SCPSCURoleSelection]]", "[Roles]"]
        rows += [f"Role{number} = {role}" for number, role in enumerate(roles, 1)]
    if extended:
        rows += ["[[ExtendedNegotiation]]", "[Bytes]"]
        rows += [f"ExtendedNegotiation{number} = {data}" for number, data in enumerate(extended, 1)]
    rows += ["[[Profiles]]", "[All]", "PresentationContexts = Any"]
    rows += ["SCPSCURoleSelection = Roles"] if roles else []
    rows += ["ExtendedNegotiation = Bytes"] if extended else []
    return "\n".join([*rows, ""]).encode("ascii")


def common_files() -> dict[str, bytes]:
    """Return the files that every line finds in the folder it is started in: a profile, and a dictionary."""
    from differential_objects import MODALITIES, SYNTAXES, UNKNOWN_CLASS, VERIFICATION
    from encoding_trees import GE_PIXELS, JPEG

    return {
        "all.cfg": profile([*MODALITIES, UNKNOWN_CLASS, VERIFICATION], [*SYNTAXES, JPEG, GE_PIXELS]),
        DICTIONARY: dictionary_text().encode("latin-1"),
    }
