"""Tests of ariproxy, run by trial."""
