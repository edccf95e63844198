"""One port for everything that servers reach: haproxy tells connections apart by server name.

TLS passes through it as it is, to the listener that the name stands for. It holds no key, and its
configuration is written once: a cluster's server name carries the port, and a fixed list says which
names there are.
"""

from infra.gateway.configuration import Gateway, write_configuration

__all__ = ["Gateway", "write_configuration"]
