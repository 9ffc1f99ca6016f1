"""The kernel's side: one Protocol, and a module for each way to hold entries."""
