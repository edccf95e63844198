"""A chart in memory whose templates print exactly the objects of one render.

What was planned and approved is what Helm applies: nothing is rendered a second time. Helm still
sees hooks, since it looks for them in what templates print.
"""

import json
import re
import zlib
from collections.abc import Sequence
from typing import Final

from domain.errors import BulkheadError, Reason
from infra.helm.archive import pack
from infra.kubernetes.client import Object

# Helm keeps a release in one Secret, and the API server takes no larger one.
RELEASE_LIMIT_BYTES: Final = 1024 * 1024

# What tells zlib to write gzip's header.
_GZIP: Final = 16 + zlib.MAX_WBITS

# Objects are texts in the chart's values: braces in them are not evaluated, and Helm keeps values
# as they are, while it keeps files in base64, which hardly compresses.
_TEMPLATE: Final = b"""{{- range .Values.objects }}
---
{{ . }}
{{- end }}
"""

# YAML folds lines at some of these, and forbids others; as escapes they mean the same to both.
_NOT_PLAIN: Final = re.compile("[\\x7f-\\uffff]")


def release_chart(name: str, semver: str, app_version: str, objects: Sequence[Object]) -> bytes:
    """Return the archive for `helm upgrade`.

    Args:
        name: of the chart that was rendered, as `helm list` shows it.
        semver: its version.
        app_version: of what it deploys.
        objects: those in the install's namespace, with what their Secrets hold.
    """
    about = {"apiVersion": "v2", "name": name, "version": semver, "appVersion": app_version}
    return pack(
        {
            f"{name}/Chart.yaml": json.dumps(about).encode(),
            f"{name}/values.yaml": _text_of(
                {"objects": [_text_of(obj) for obj in objects]}
            ).encode(),
            f"{name}/templates/objects.yaml": _TEMPLATE,
        }
    )


def release_size(name: str, semver: str, app_version: str, objects: Sequence[Object]) -> int:
    """Return about how large Helm's Secret of a release will be, in bytes.

    It is the gzipped JSON of chart and manifest in base64. Go compresses a bit differently, so that
    the estimate was found to be off by 4 % at most.
    """
    texts = [_text_of(obj) for obj in objects]
    record = {
        "name": name,
        "chart": {
            "metadata": {"name": name, "version": semver, "appVersion": app_version},
            "values": {"objects": texts},
        },
        "manifest": "\n---\n".join(texts),
    }
    text = json.dumps(record).encode()
    # Go ignores short repetitions, as this strategy does; which of them is closer depends.
    packed = min(_packed(text, zlib.Z_DEFAULT_STRATEGY), _packed(text, zlib.Z_FILTERED))
    return (packed + 2) // 3 * 4


def check_size(size: int) -> None:
    """Return when a release of a size can be kept.

    Raises:
        BulkheadError: FAILED_PRECONDITION when Helm's Secret would be too large.
    """
    if size > RELEASE_LIMIT_BYTES:
        raise BulkheadError(
            Reason.FAILED_PRECONDITION,
            f"The release would have {size:,} bytes, and Kubernetes keeps at most "
            f"{RELEASE_LIMIT_BYTES:,} in one Secret. Split the chart, or take large files out of "
            "it.",
            metadata={"bytes": str(size), "limit": str(RELEASE_LIMIT_BYTES)},
        )


def _packed(text: bytes, strategy: int) -> int:
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP, zlib.DEF_MEM_LEVEL, strategy)
    return len(packer.compress(text)) + len(packer.flush())


def _text_of(obj: Object) -> str:
    """Return JSON that is the same object when it is read as YAML."""
    text = json.dumps(obj, sort_keys=True, ensure_ascii=False)
    return _NOT_PLAIN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
