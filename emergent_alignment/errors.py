"""The exceptions that the command line knows; any other is a bug and keeps its stack trace."""

# EX_TEMPFAIL: a run was asked to stop, has saved, and goes on when started again.
STOPPED_EXIT_CODE = 75
# EX_UNAVAILABLE: what is not of this machine did not answer; the same command may work in a while.
UNREACHABLE_EXIT_CODE = 69
LONGEST_MESSAGE = 3000  # letters


class UserError(Exception):
    """A user's mistake: a wrong path, a broken file, a setting that cannot work.

    The message is one line that says where, what is wrong, and what to do. The command line
    prints it and exits with 2. Of one that quotes a long value, beginning and end are said.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) <= LONGEST_MESSAGE:
            return text
        return f"{text[: LONGEST_MESSAGE // 2]} … {text[-LONGEST_MESSAGE // 2 :]}"


class Unreachable(UserError):
    """Something outside did not answer: the network, the hub, another host, a device. It need not
    be anybody's mistake, and trying again may help: the exit code is 69."""


class Stopped(Exception):
    """The run was asked to stop and has saved its state."""
