"""The named programs: plain functions that declare resources, one module a provider.

Each module has `network(program, shape)` and `machine(program, shape, user_data)`, which return
outputs by name, and `RESOURCES`, which says for each kind of stack which logical resources the
program declares and which kind each has in the inventory. Only a runner's process imports them.
"""
