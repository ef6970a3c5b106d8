"""Replication rules: what they say, how two sets differ, what a destination must allow."""
