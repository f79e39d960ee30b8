"""What keeps a data set from being written in the form that is asked for."""


class EncodingError(Exception):
    """A data set cannot be read to its end, or not be written in the form asked for.

    The text says why, with tags, lengths and offsets into the data set (after inflating, where it is deflated), never
    with a value.
    """


class NotWritableError(EncodingError):
    """A data set can be read, but not be written in the form asked for, or is beyond a bound of ours."""


class EmptyDataSetError(NotWritableError):
    """There are no elements."""
