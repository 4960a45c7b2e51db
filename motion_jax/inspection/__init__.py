"""What a network sees, as numbers and pictures."""
