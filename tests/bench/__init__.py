"""Figures beside what they are compared with: `python -m tests.bench` measures all and writes one table."""
