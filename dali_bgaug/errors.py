"""Errors that a user can fix, UserError, as programs print them; any other exception is a bug of ours."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence


class UserError(ValueError):
    """Bad input: the message names the file, key or option, its value, and says what to do.

    Programs print it without a traceback and exit with status 2 (see `run_program`).
    """


class UnusablePhotos(UserError):
    """Photos that a loader met and cannot show."""

    def __init__(self, message: str, reasons: Mapping[str, str]) -> None:
        """reasons: a line each, by the photo's path or, of packed shards, `SHARD: KEY`; none where the fault
        is not a photo's."""
        super().__init__(message)
        self.reasons = dict(reasons)


def shown(text: str) -> str:
    """A line for a terminal or a report: control characters as escapes, since a file's name may hold some
    that clear the screen or begin a line of their own."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def some(names: Sequence[str], count: int = 8, between: str = ", ") -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - count
    return between.join(names[:count]) + (f"{between.replace(',', '')}and {more} more" if more > 0 else "")


def run_program(main: Callable[[], None], interrupted: str) -> None:
    """Run a command-line program: a UserError becomes `error: …` on stderr and exit status 2.

    Only the program itself begins a line: what follows in an error is indented.

    interrupted: what to say after Ctrl-C (exit status 130).
    """
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        first, *rest = map(shown, str(error).split("\n"))
        print("\n  ".join([f"error: {first}", *(line.removeprefix("  ") for line in rest)]), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest at its end
        sys.exit(1)
