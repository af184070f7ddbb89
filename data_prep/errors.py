"""Mistakes the user can mend, and which refusals of the system are such. The ground floor: imports nothing of ours but
how text is shown on a terminal."""

import errno
import os
from pathlib import Path

from data_prep.terminal import visible

# What the system refuses for how disks, rights and names are, which the user can mend. Whatever else it refuses, a file
# that is not there among them, points to a bug and keeps its traceback.
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_REFUSED = frozenset(
    (
        errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
        errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EFBIG, errno.ENOLCK, errno.EBUSY, errno.ETIMEDOUT,
        errno.EHOSTDOWN, errno.ENOTCONN, errno.EMFILE, errno.ENFILE, errno.EILSEQ,
    )
)  # fmt: skip


class UserError(Exception):
    """A mistake the user can mend: printed as one line, exit code 2, without a traceback."""

    def shown(self) -> str:
        """What to print: nothing in it may steer the terminal."""
        return visible(str(self))


def refusal(error: OSError, folder: Path) -> UserError | None:
    """What the system refused as a mistake the user can mend, None where it is none.

    `folder` is what the command works on, for errors that name no file.
    """
    place = error.filename or folder
    if error.errno in _FULL:
        return UserError(
            f"the disk is full ({place}); make room and run the command again: it goes on where it stopped"
        )
    if error.errno in _REFUSED:
        return UserError(f"cannot use {place}: {error.strerror}; mend that, or name another place")
    if error.errno == errno.ENOENT and not os.path.lexists(folder):
        return UserError(f"{folder} is gone or cannot be made; name another place, or run the command when it is back")
    return None
