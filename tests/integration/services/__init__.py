"""Real servers for tests and benchmarks: Kafka, Asterisk, Redis, and SIPp calls.

Each server is one class with the life cycle of
:class:`~tests.integration.services.processes.Server`; plain Python, usable from any
thread, with or without a running reactor. What they need is fetched by
``make services``; each module's ``missing()`` says what is not there yet.
"""
