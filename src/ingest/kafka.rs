//! The suite that every source must pass; users may run it over theirs.
