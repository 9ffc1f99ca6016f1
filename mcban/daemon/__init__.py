"""The engine as a process: its loop, its signals, and what it tells others about itself."""
