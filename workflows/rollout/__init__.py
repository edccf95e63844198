"""Rollouts: one workflow drives a rollout, and one moves a target or takes it back."""
