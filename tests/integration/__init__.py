"""Tests against real servers; .ci/run starts them."""
