"""The command line: one file for each noun; `main.py` turns errors into messages and exit statuses."""
