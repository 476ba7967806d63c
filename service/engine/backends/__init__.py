"""What runs a batch."""
