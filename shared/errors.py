"""Introduced in task 1; used by tasks 1, 2, 3, 4, 5.

The one exception for mistakes that a person can mend: entry points print it as one line and exit
with status 1.
"""


class UserError(Exception):
    """Something a person can mend: one line that says what is wrong, where, and what to do."""

    def __str__(self) -> str:
        """The message on one line, whatever was put into it (a file name may hold a line break).

        A loader's worker process hands its error on inside its traceback, which ends with this class and the
        message.
        """
        message = super().__str__().rpartition(f"{__name__}.UserError: ")[2]
        line = " ".join(line.strip() for line in message.splitlines())
        return "".join(c if c.isprintable() else "?" for c in line)  # a name from elsewhere may steer a terminal
