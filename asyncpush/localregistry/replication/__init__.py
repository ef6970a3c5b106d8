"""Images on their way to other accounts and Regions."""
