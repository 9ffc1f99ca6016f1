"""Following log files across rotation, and the journal, from positions that SQL remembers; reading archives."""

from mcban.logs.archive import InDoubtError, find_archives, read_archive, read_file, size_of
from mcban.logs.follower import Follower
from mcban.logs.journal import read_journal
from mcban.logs.journal_name import is_journal, name_entries
from mcban.logs.model import UTF16_SAID, Block, LogState, LogStatus, Position, is_utf16
from mcban.logs.paths import split_logpath
from mcban.logs.reader import LogReader

__all__ = [
    "UTF16_SAID",
    "Block",
    "Follower",
    "InDoubtError",
    "LogReader",
    "LogState",
    "LogStatus",
    "Position",
    "find_archives",
    "is_journal",
    "is_utf16",
    "name_entries",
    "read_archive",
    "read_file",
    "read_journal",
    "size_of",
    "split_logpath",
]
