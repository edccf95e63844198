"""What is done with secrets, durably."""
