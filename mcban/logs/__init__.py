"""Following log files across rotation, from a position that SQL remembers."""
