"""`make bench`: what Bulkhead costs, bare and ours side by side in one run, as JSON."""
