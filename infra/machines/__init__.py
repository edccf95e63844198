"""What a control-plane host's worker does all the time for the machines of its clusters.

`keeper.py` looks at each cluster every two seconds: `approver.py` decides about the certificates
that kubelets ask for, `health.py` brings what nodes show into the rows, `repairs.py` plans repairs.
"""
