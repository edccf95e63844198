"""The Temporal server: how we connect, and the only code that starts or cancels a workflow."""
