"""The vocabulary: ids, states and their transitions, names derived from ids, typed errors.

Pure Python. Nothing here reads a clock, a file, a setting or the network, and nothing imports
another package of ours, so every layer may use it, workflow code inside the sandbox included.
"""
