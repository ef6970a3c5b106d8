"""Planning: references, and the graph of what a repository must hold. Pure."""
