"""What requests ask of the database: each function is part of one transaction, none commits.

Nothing here filters by workspace: the transaction sees one workspace only (row-level security),
so that a forgotten condition cannot show a row of somebody else.
"""
