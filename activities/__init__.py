"""One system asked, once, safely repeatable.

An activity takes one frozen input with a `workspace_id` and may be run again at any time: it looks
for what a dead attempt left, finishes it, and finds nothing to do the third time. It raises
`BulkheadError`; `interceptor.py` turns that into Temporal's error, records the step, and beats the
heart. Drivers are imported for typing alone, so that workflows can import the signatures.
"""
