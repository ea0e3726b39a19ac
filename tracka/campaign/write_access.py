"""Says who else than its owner may change a file: everybody, or the members of a group.

A folder with the sticky bit, as /tmp, is open to all, but what is in it only its owner replaces.
"""

import grp
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path


def first_open(paths: Iterable[Path], folders_above: Iterable[Path]) -> tuple[Path, str] | None:
    """Returns the first path that others may change, and who they are; None where only owners may.

    `folders_above` are folders that lead to `paths`; who may change such a folder can exchange what is in it, unless
    it has the sticky bit.
    """
    for path in paths:
        if who := _others(path, is_folder_above=False):
            return path, who
    for path in folders_above:
        if who := _others(path, is_folder_above=True):
            return path, who
    return None


def _others(path: Path, is_folder_above: bool) -> str | None:
    """Returns who else may change `path`, in words; None where nobody else may.

    Returns None for what is no file and no folder too: it is never read, and nobody should change a device's mode.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return None
    if is_folder_above and status.st_mode & stat.S_ISVTX:
        return None
    if status.st_mode & stat.S_IWOTH:
        return "every user"
    if status.st_mode & stat.S_IWGRP and not is_own_group(status.st_uid, status.st_gid):
        return f"the group {_group_name(status.st_gid)}"
    return None


def is_own_group(uid: int, gid: int) -> bool:
    """Returns whether the group `gid` is that of the user `uid` alone, as many systems make one for each user.

    Such a group has the user's name or number, and no other member.
    """
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return uid == gid  # a container may know neither
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return uid == gid
    is_named_so = user.pw_gid == gid and (group.gr_name == user.pw_name or uid == gid)
    return is_named_so and {*group.gr_mem} <= {user.pw_name}


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
