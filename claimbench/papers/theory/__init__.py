"""What complexity is and does."""
