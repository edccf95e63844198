"""The terminal client: `bulkhead`, a person's and a script's way to the public API.

It speaks HTTP to the API and knows nothing else of the platform, so it works against any
address. What every command can rely on:

- `configuration` finds the address and the token, and never sends a token to another address
  than the one it belongs to.
- `client` repeats what is safe to repeat, and turns every failure into one error type.
- `output` shows the same data to a person on a terminal, to a pipe, and as JSON.
- `progress` follows an operation; an interrupt leaves the operation running and says so.
- `commands` has one file a noun. A command gets a `Session` and its own arguments; the options
  that all commands share are added by `options.command`.
"""
