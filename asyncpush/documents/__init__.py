"""Documents that people write: YAML with the line of every key, and what is wrong in them."""
