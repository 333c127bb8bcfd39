"""The one exception that means: the user can mend this. Everything else is a bug of ours."""


class UserError(ValueError):
    """Bad input: the message names the file, key or option, its value, and says what to do.

    Command-line programs print it as one line, without a traceback, and exit with status 2.
    """
