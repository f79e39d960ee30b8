"""Every bound of the Store transaction's formats, with its reason. Sizes are in bytes."""

from typing import Final

BOUNDARY_BYTES_MAX: Final = 256
"""The longest boundary that is taken. RFC 2046 §5.1.1 knows 70 characters, and Orthanc sends 73; what is searched for in every byte
of a body stays short."""

PADDING_BYTES_MAX: Final = 256
"""Blanks behind a boundary, before the end of its line. A gateway adds a few; a line with more of them is content."""

PREAMBLE_BYTES_MAX: Final = 16 * 1024
"""What may stand before the first boundary: a line break, or a sentence for programs that know no multipart."""

PART_HEAD_BYTES_MAX: Final = 16 * 1024
"""The fields of one part. Four short ones are usual; as much is what HTTP servers take for a whole request's head."""

PART_FIELDS_MAX: Final = 32
"""Fields of one part. More than a dozen means nothing here, and each costs memory that its bytes do not show."""

MEDIA_TYPE_CHARACTERS_MAX: Final = 1024
"""A media type with its parameters. The longest real one, with a boundary, a start and a transfer syntax, has some 300."""

MEDIA_TYPE_PARAMETERS_MAX: Final = 16
"""Parameters of a media type. A store request has three or four."""

ACCEPT_ENTRIES_MAX: Final = 64
"""Media types of an Accept that are looked at. Browsers send eight; those beyond count for nothing."""

ACCEPT_CHOICES_REMEMBERED: Final = 16
"""Choices between the forms of an answer that are remembered by what was accepted: a client asks for the same each time. With the
longest heads that are taken they are 256 kB."""

ERROR_COMMENT_CHARACTERS_MAX: Final = 64
"""What one Error Comment (0000,0902) holds (PS3.5 §6.2, VR LO). Longer words go on in the next item."""

WORDS_CHARACTERS_MAX: Final = 1024
"""The words beside a reason, written or read. A few sentences; a response names each of ten thousand instances."""

RESPONSE_BYTES_MAX: Final = 16 * 1024 * 1024
"""A response that is read: one in XML that names 20 000 instances with words beside each has as many. Parsed it takes some 20 times that."""

RESPONSE_XML_DEPTH_MAX: Final = 16
"""Elements of XML inside one another. The words of a failure, the deepest value there is, stand at 8."""
