"""The few images that nodes need from the platform, made of pinned programs without a registry.

An image is one layer with one program. The same program gives the same digest each time, and the
digest is what manifests and nodes refer to. Images are written where the registry reads them
(`RegistryStorage`), so nothing is ever pushed.
"""

from infra.images.image_set import IMAGE_PROGRAMS, ImageReferences, ImageSet

__all__ = ["IMAGE_PROGRAMS", "ImageReferences", "ImageSet"]
