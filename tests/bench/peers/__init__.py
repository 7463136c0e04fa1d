"""The job beside what else a Python user can install: each side a script of its own, on one topic, in turn."""
