"""Before a byte moves: what would keep a push from succeeding, found without changing anything."""
