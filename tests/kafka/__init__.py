"""Tests against real Kafka brokers, and the harness that starts them."""
