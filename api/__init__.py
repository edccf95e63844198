"""Who asks, and for what: the HTTP contract under `/v1`, and nothing durable of its own.

A request is one transaction. `scope.py` opens it: it looks the bearer token up, binds the
transaction to the workspace in which the request acts, commits before the answer is sent, and only
then starts or cancels workflows. A route checks the caller and the request, calls one function
that writes, and renders rows as the contract's JSON; it is the only place where that JSON is made,
so answers are not validated a second time.

Every failure is a `domain.errors.BulkheadError`, and `errors.py` alone renders them. Where a
request is at fault: a header or the query is a 400, a field of the body a 422, an id in the path
that is not there, or not ours to see, the same 404.

`main.py` composes the process: settings, clients, the application, and its two listeners.
"""
