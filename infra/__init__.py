"""The world outside the process: one folder a system, the only code that knows its driver."""
