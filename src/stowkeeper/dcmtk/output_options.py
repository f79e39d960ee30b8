"""The output options that both programs take, in the same words."""

from typing import Final

from stowkeeper.dcmtk.grammar import Group, Option, Value

PLACE: Final = Group(
    title="place",
    options=(
        Option(
            long="--output-directory",
            short="-od",
            values=(Value(label="[d]irectory", default="."),),
            meaning="store into directory d, which must be there",
        ),
    ),
)
