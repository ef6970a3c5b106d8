"""Documents: YAML of people, with the line of every key and what is wrong; JSON of our own."""
