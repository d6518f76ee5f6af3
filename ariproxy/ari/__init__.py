"""Asterisk: its messages, its resources, and the two ways to talk to it."""
