"""Who may call: keys, signatures, policies, tokens."""
