"""What only a stack has that servers reach: images, their registry, and the gateway."""

import os

from domain.names import API_SERVER_NAME, REGISTRY_SERVER_NAME
from infra.embedded.gateway import GatewayServer
from infra.embedded.home import Home
from infra.embedded.ports import Ports, address_of
from infra.embedded.registry import RegistryServer
from infra.gateway import Gateway, haproxy
from infra.images import IMAGE_PROGRAMS, ImageReferences, ImageSet
from infra.settings import OpenBaoSettings
from infra.tools import ensure, install_into


def make_images(home: Home) -> None:
    """Make the images that nodes need, and the program that serves them."""
    install_into(home.programs, ("registry",))
    images = ImageSet(home.registry / "storage", home.images_file)
    images.ensure(ensure(IMAGE_PROGRAMS))


def images_of(home: Home, registry: str) -> ImageReferences | None:
    """Return the images as nodes ask the registry for them, None while there are none."""
    if not home.images_file.exists():
        return None
    return ImageReferences.load(home.images_file).at(registry)


def registry_of(home: Home, ports: Ports, host: str, openbao: OpenBaoSettings) -> RegistryServer:
    """Return the registry on an address; as root it is a user of its own."""
    uid = ports.registry_uid if os.geteuid() == 0 else None
    return RegistryServer(home, address_of(host, ports.registry), openbao, uid)


def gateway_of(home: Home, ports: Ports, host: str, slots: int) -> GatewayServer | None:
    """Return the gateway on an address, None where haproxy is not installed."""
    program = haproxy.find()
    if program is None:
        return None
    gateway = Gateway(
        address=host,
        port=ports.gateway,
        services={API_SERVER_NAME: ports.api_https, REGISTRY_SERVER_NAME: ports.registry},
        first_port=ports.control_planes,
        slots=slots,
        uid=ports.gateway_uid if os.geteuid() == 0 else None,
    )
    return GatewayServer(home.gateway, gateway, program)
