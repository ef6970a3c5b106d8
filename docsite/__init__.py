"""What the documentation's site takes from the code when it is built; no part of the package."""
