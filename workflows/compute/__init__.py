"""What the clock and requests have looked at in customers' accounts."""
