"""Pulumi stacks: their programs, the processes that run them, and their recovery."""
