"""Following log files across rotation, from a position that SQL remembers."""

from mcban.logs.archive import read_file
from mcban.logs.follower import POLL, Follower
from mcban.logs.model import Block, LogState, LogStatus, Position
from mcban.logs.paths import split_logpath

__all__ = ["POLL", "Block", "Follower", "LogState", "LogStatus", "Position", "read_file", "split_logpath"]
