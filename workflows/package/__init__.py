"""What is done with packages, durably."""
