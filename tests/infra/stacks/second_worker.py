"""A worker of its own process, to be killed: `python -m tests.infra.stacks.second_worker JSON`."""

import asyncio
import json
import sys
from typing import Any

from domain.cloud import Provider
from domain.identifiers import Prefix, new_id
from domain.secret import SecretValue
from domain.stack import StackAction
from infra.clouds.registry import open_cloud
from infra.database.engine import Database, DatabaseRole
from infra.openbao.client import OpenBao
from infra.settings import DatabaseSettings, OpenBaoSettings, ProviderSettings, StackSettings
from infra.stacks.request import StackRequest, request_of
from infra.stacks.stacks import Stacks
from tests.infra.stacks.laboratory import Laboratory


def arguments_of(laboratory: Laboratory, request: StackRequest) -> str:
    """Return what the process is started with."""
    return json.dumps(
        {
            "database": laboratory.servers.database.model_dump(mode="json"),
            "openbao": laboratory.servers.openbao("worker").model_dump(mode="json"),
            "stacks": laboratory.settings.model_dump(mode="json"),
            "provider": laboratory.case.provider,
            "providers": laboratory.case.settings(laboratory.account.url).model_dump(mode="json"),
            "credential": laboratory.account.credential.text(),
            "request": request.as_json(),
        }
    )


async def _main(arguments: dict[str, Any]) -> None:
    settings = DatabaseSettings(**arguments["database"])
    stacks = Stacks(
        Database(settings, DatabaseRole.WORKER),
        OpenBao(OpenBaoSettings(**arguments["openbao"])),
        settings,
        StackSettings(**arguments["stacks"]),
    )
    cloud = open_cloud(
        Provider(arguments["provider"]),
        SecretValue(arguments["credential"].encode()),
        ProviderSettings(**arguments["providers"]),
    )
    program = request_of(arguments["request"]).program
    await stacks.run(StackAction.UP, program, cloud, operation_id=new_id(Prefix.OPERATION))


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
