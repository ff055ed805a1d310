"""The one exception that is the user's to fix; any other is a bug and keeps its stack trace."""


class UserError(Exception):
    """A user's mistake: a wrong path, a broken file, a setting that cannot work.

    The message is one line that says where, what is wrong, and what to do. The command line
    prints it and exits with 2.
    """
