"""The suite: `python -m tests` runs all of it; nothing here is installed with the package."""
