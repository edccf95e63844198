"""The page that shows the OpenAPI document to people, made of nothing but itself.

It loads no script, style or font from elsewhere, so that it also works where nothing else is
reachable, and so that nobody else learns who reads it.
"""

import base64
import hashlib
from pathlib import Path
from typing import Final

_TEMPLATE: Final = Path(__file__).with_name("documentation.html").read_text()
_SCRIPT: Final = Path(__file__).with_name("documentation.js").read_text()
_SCRIPT_HASH: Final = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{_SCRIPT_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
}


def page() -> str:
    """Return the page, which reads `openapi.json` beside it."""
    return _TEMPLATE.replace("<!-- script -->", f"<script>{_SCRIPT}</script>")
