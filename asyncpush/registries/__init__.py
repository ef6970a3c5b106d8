"""Registries: one Protocol, and the transports behind it."""
