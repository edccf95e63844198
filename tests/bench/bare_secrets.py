"""The reference of the secrets benchmark: a FastAPI route with nothing but the read of OpenBao.

`python -m tests.bench.bare_secrets PORT` with what to read in OPENBAO_* variables.
"""

import asyncio
import base64
import os
import sys
from pathlib import Path

import hvac
import uvicorn
from fastapi import FastAPI
from starlette.responses import JSONResponse

from infra.openbao.policies import API
from infra.openbao.session import OpenBaoSession
from infra.settings import OpenBaoSettings


def create_app() -> FastAPI:
    """Make the application, logged in as the API is."""
    settings = OpenBaoSettings(
        address=os.environ["OPENBAO_ADDRESS"],
        login_key_file=Path(os.environ["OPENBAO_LOGIN_KEY_FILE"]),
    )
    session = OpenBaoSession(settings, API)
    namespace = os.environ["OPENBAO_NAMESPACE"]
    path = os.environ["OPENBAO_PATH"]
    app = FastAPI()

    def read() -> str:
        def request(client: hvac.Client) -> str:
            answer = client.read(path)
            assert isinstance(answer, dict)
            return base64.b64decode(answer["data"]["data"]["v"]).decode()

        return session.call("read", request, namespace=namespace, login_namespace=namespace)

    @app.post("/value")
    async def value() -> JSONResponse:
        return JSONResponse({"value": await asyncio.to_thread(read)})

    return app


if __name__ == "__main__":
    uvicorn.run(
        create_app(),
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
