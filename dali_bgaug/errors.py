"""The one exception that means: the user can mend this. Everything else is a bug of ours."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Bad input: the message names the file, key or option, its value, and says what to do.

    Programs print it without a traceback and exit with status 2 (see `run_program`).
    """


def run_program(main: Callable[[], None], interrupted: str) -> None:
    """Run a command-line program: a UserError becomes `error: …` on stderr and exit status 2.

    interrupted: what to say after Ctrl-C (exit status 130).
    """
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        sys.exit(130)
