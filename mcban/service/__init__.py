"""The only place that reads, decides and writes: commands and the engine both go through it."""
