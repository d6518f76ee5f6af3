"""A whole system on one machine: simulated Asterisk, embedded Kafka, a controller."""
