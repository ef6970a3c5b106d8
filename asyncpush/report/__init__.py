"""Reports: what a push did, as one JSON document that people and machines can read later."""
