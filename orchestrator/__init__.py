"""Supervise coding agents: one event stream and one truthful outcome. Importing does nothing."""

__version__ = "0.1.0"
