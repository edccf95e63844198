"""Addresses at which a person can look at a thing."""

from dataclasses import dataclass
from urllib.parse import quote

from fastapi import Request


@dataclass(frozen=True, slots=True)
class Links:
    """Builds `html_url`s: Temporal's UI for operations where there is one, else the API itself."""

    public_url: str
    workflows_url: str | None

    @classmethod
    def of(cls, request: Request) -> "Links":
        """Return the links of the application that handles a request."""
        links: Links = request.app.state.links
        return links

    def operation(self, operation_id: str, workflow_id: str) -> str:
        """Return where an operation can be watched."""
        if self.workflows_url is None:
            return f"{self.public_url}/v1/operations/{operation_id}"
        return f"{self.workflows_url}/{quote(workflow_id, safe='')}"

    def cluster(self, cluster_id: str) -> str:
        """Return where a cluster can be looked at."""
        return f"{self.public_url}/v1/clusters/{cluster_id}"

    def secret(self, secret_id: str) -> str:
        """Return where a secret can be looked at."""
        return f"{self.public_url}/v1/secrets/{secret_id}"

    def rollout(self, rollout_id: str) -> str:
        """Return where a rollout can be looked at."""
        return f"{self.public_url}/v1/rollouts/{rollout_id}"

    def install(self, install_id: str) -> str:
        """Return where an install can be looked at."""
        return f"{self.public_url}/v1/installs/{install_id}"

    def package(self, package_id: str) -> str:
        """Return where a package can be looked at."""
        return f"{self.public_url}/v1/packages/{package_id}"

    def product(self, product_id: str) -> str:
        """Return where a product can be looked at."""
        return f"{self.public_url}/v1/products/{product_id}"
