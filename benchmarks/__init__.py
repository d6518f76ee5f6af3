"""Measurements of the daemon on this machine, each beside a bare loop."""
