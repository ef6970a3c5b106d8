"""Telemetry: how a push stands while it runs, for views, metrics and traces."""
