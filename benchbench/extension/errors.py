"""What is said of bad input."""

from collections.abc import Sequence


class BadInput(Exception):
    """What the user gave cannot be used.

    The message is one sentence that says what is wrong, where, and what there is instead. The
    command line prints it, without a traceback, and exits with status 2.
    """


class MissingData(BadInput):
    """A dataset's files are not there; the message says where they come from."""

    def __init__(self, message: str, files: Sequence[str]) -> None:
        super().__init__(message)
        self.files = tuple(files)  # all that are missing, below the data folder
