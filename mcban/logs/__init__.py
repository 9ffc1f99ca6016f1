"""Following log files across rotation, from a position that SQL remembers."""

from mcban.logs.archive import find_archives, read_archive, read_file, size_of
from mcban.logs.follower import POLL, Follower
from mcban.logs.model import Block, LogState, LogStatus, Position
from mcban.logs.paths import split_logpath

__all__ = [
    "POLL",
    "Block",
    "Follower",
    "LogState",
    "LogStatus",
    "Position",
    "find_archives",
    "read_archive",
    "read_file",
    "size_of",
    "split_logpath",
]
