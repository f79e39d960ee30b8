"""Options that must not stand beside each other, as far as `test_dcmtk_command_lines.py` has not got them."""

from differential_line import Line, lines
from differential_lines_network import CONNECTION

_COMPRESSED = (*(f"+x{letter}" for letter in "syxvwtumhnl23o45r"),)
_OTHERS = ["+xe", "+xb", "+xd", "+xi", "+xa"]
_CONVERTED = ["+te", "+tb", "+ti", "+td"]

LINES: tuple[Line, ...] = (
    *lines("storescp", " | ".join(f"-xf all.cfg All {one}" for one in (*_COMPRESSED, *_OTHERS, "-pm"))),
    *lines(
        "storescp",
        " | ".join(f"{one} {other}" for one in _CONVERTED for other in (*_COMPRESSED, "+xa", "+B")),
    ),
    *lines("storescp", "-id -xcs c -ss x | -id -rns -su x | -id -fe x --ignore", CONNECTION),
    *lines(
        "storescp",
        "--fork -rns -sp | --fork -xcs c -sp | +p 4 4 -F | +p 4 4 +B",
    ),
)
