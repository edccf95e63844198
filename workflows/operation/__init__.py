"""What keeps operations moving, whatever happens to processes and to Temporal."""
