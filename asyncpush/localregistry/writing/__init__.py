"""What both APIs do when they write."""
