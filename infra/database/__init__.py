"""PostgreSQL: the truth about what is wanted and what was reached.

Row-level security is forced on every table of a workspace. A transaction names its workspace once
(`Database.workspace`, or the `authenticate` function of the API) and sees nothing else; a
transaction that names none sees no row at all. `tables/` says what is stored, `queries/` reads,
`records/` holds the transactions of workflows, `migrations/` brings a database up to date.
"""
