"""What does not fit in a request, in our words: of each error of the validation, without what the request contained.

Only what the shape asks for is repeated: names of members, values that are possible, bounds.
"""

from collections.abc import Mapping
from typing import Any, Final

_KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "an object",
    "model": "an object",
    "model_attributes": "an object",
    "dataclass": "an object",
    "none_required": "null",
}
_ENDINGS: Final = ("_type", "_parsing", "_from_float", "_parsing_size")

_WORDS: Final = {
    "missing": "it is missing",
    "extra_forbidden": "it has a member that is not known here",
    "none_required": "it has to be null",
    "finite_number": "it has to be a finite number",
    "greater_than": "it has to be more than {gt}",
    "greater_than_equal": "it has to be at least {ge}",
    "less_than": "it has to be less than {lt}",
    "less_than_equal": "it has to be at most {le}",
    "string_too_short": "it has to have at least {min_length} characters",
    "string_too_long": "it has to have at most {max_length} characters",
    "string_pattern_mismatch": "it does not have the form that it has to have; /api/docs tells which",
    "too_short": "it has to have at least {min_length} entries",
    "too_long": "it has to have at most {max_length} entries",
    "literal_error": "it has to be {expected}",
    "enum": "it has to be {expected}",
    "union_tag_not_found": "it has to have the member {discriminator}, which says what it is",
    "union_tag_invalid": "its member {discriminator} has to be one of {expected_tags}",
}

_ANYTHING: Final = "it is not what it has to be; /api/docs tells what that is"


def misfit_words(found: Mapping[str, Any]) -> str:
    """Say what one error of a validation is about, as a clause whose subject is the part of the request."""
    kind = str(found.get("type", ""))
    context: Mapping[str, Any] = found.get("ctx") or {}
    if kind == "value_error" and "error" in context:
        return str(context["error"])  # a ValueError of ours
    if kind in {"string_too_short", "too_short"} and context.get("min_length") == 1:
        return "it has to have something in it"
    if kind in _WORDS:
        try:
            return _WORDS[kind].format_map(context)
        except KeyError:
            return _ANYTHING
    for ending in _ENDINGS:
        if kind.removesuffix(ending) in _KINDS and kind.endswith(ending):
            return f"it has to be {_KINDS[kind.removesuffix(ending)]}"
    return _ANYTHING


def misfit_place(found: Mapping[str, Any]) -> str:
    """Name the part of a request that an error is about, such as `body.uids[3]`.

    What the request called a part that there is not is left out; so is the number of a parameter that may be repeated.
    """
    parts: tuple[object, ...] = tuple(found.get("loc", ()))
    known = parts[:-1] if found.get("type") == "extra_forbidden" else parts
    place = ""
    for part in known:
        if not isinstance(part, int):
            place += f".{part}" if place else str(part)
        elif not place.startswith("query"):
            place += f"[{part}]"
    return place
