"""IAM's methods for service accounts and their keys."""

import asyncio
import base64
import json
from datetime import datetime
from typing import Final

from cryptography import x509

from infra.local_cloud.gcp import answers
from infra.local_cloud.gcp.calls import Call
from infra.local_cloud.gcp.discovery import Json
from infra.local_cloud.gcp.identities import (
    Account,
    Identities,
    Key,
    new_key_file,
    new_private_key,
)

# What follows `iam.projects.` in a method's id, and the permission that it asks for.
PERMISSIONS: Final = {
    "serviceAccounts.create": "iam.serviceAccounts.create",
    "serviceAccounts.get": "iam.serviceAccounts.get",
    "serviceAccounts.list": "iam.serviceAccounts.list",
    "serviceAccounts.patch": "iam.serviceAccounts.update",
    "serviceAccounts.delete": "iam.serviceAccounts.delete",
    "serviceAccounts.disable": "iam.serviceAccounts.disable",
    "serviceAccounts.enable": "iam.serviceAccounts.enable",
    "serviceAccounts.keys.create": "iam.serviceAccountKeys.create",
    # An upload asks for the same permission as a creation.
    "serviceAccounts.keys.upload": "iam.serviceAccountKeys.create",
    "serviceAccounts.keys.get": "iam.serviceAccountKeys.get",
    "serviceAccounts.keys.list": "iam.serviceAccountKeys.list",
    "serviceAccounts.keys.delete": "iam.serviceAccountKeys.delete",
    "serviceAccounts.keys.disable": "iam.serviceAccountKeys.disable",
    "serviceAccounts.keys.enable": "iam.serviceAccountKeys.enable",
}


class ServiceAccounts:
    """Answers IAM's methods."""

    def __init__(self, identities: Identities, token_url: str) -> None:
        self._identities = identities
        self._token_url = token_url

    async def answer(self, what: str, call: Call) -> Json:
        """Answer a method of `PERMISSIONS`."""
        project = call.variables["projectsId"]
        if what == "serviceAccounts.create":
            return _account_body(self._identities.add_account(project, call.body))
        if what == "serviceAccounts.list":
            return self._list(project, call)
        account = self._identities.account(call.variables["serviceAccountsId"])
        if project not in {"-", account.project}:
            raise answers.ApiError(404, "notFound", "Unknown service account")
        if what.startswith("serviceAccounts.keys."):
            return await self._answer_keys(what.rpartition(".")[2], account, call)
        match what.rpartition(".")[2]:
            case "delete":
                del self._identities.accounts[account.email]
                return {}
            case "disable" | "enable" as verb:
                account.disabled = verb == "disable"
                return {}
            case "patch":
                given = call.body.get("serviceAccount", {})
                account.display_name = given.get("displayName", account.display_name)
                account.description = given.get("description", account.description)
        return _account_body(account)

    def _list(self, project: str, call: Call) -> Json:
        accounts = [a for a in self._identities.accounts.values() if a.project == project]
        page, token = call.page([_account_body(a) for a in accounts], "pageSize", 20)
        return {"accounts": page} | token

    async def _answer_keys(self, verb: str, account: Account, call: Call) -> Json:
        if verb == "create":
            private = await asyncio.to_thread(new_private_key)
            key, found = new_key_file(self._identities, account, self._token_url, private)
            data = base64.b64encode(json.dumps(found, indent=2).encode()).decode()
            made = {
                "privateKeyData": data,
                "privateKeyType": "TYPE_GOOGLE_CREDENTIALS_FILE",
            }
            return _key_body(account, key) | made
        if verb == "upload":
            return self._upload(account, call)
        if verb == "list":
            return {"keys": [_key_body(account, key) for key in account.keys.values()]}
        key = self._key(account, call.variables["keysId"])
        match verb:
            case "delete":
                del account.keys[key.id]
            case "disable" | "enable":
                key.disabled = verb == "disable"
            case "get":
                return _key_body(account, key) | _public_part(key, call)
        return {}

    def _upload(self, account: Account, call: Call) -> Json:
        try:
            pem = base64.b64decode(call.body.get("publicKeyData", ""))
            certificate = x509.load_pem_x509_certificate(pem)
        except ValueError:
            raise answers.invalid(
                message="The public key is no X.509 certificate in PEM."
            ) from None
        key = self._identities.add_key(account, certificate, "USER_PROVIDED")
        return _key_body(account, key)

    @staticmethod
    def _key(account: Account, key_id: str) -> Key:
        if key_id not in account.keys:
            path = f"{account.path}/keys/{key_id}"
            raise answers.ApiError(404, "notFound", f"Service account key {path} does not exist.")
        return account.keys[key_id]


def _public_part(key: Key, call: Call) -> Json:
    match call.query.get("publicKeyType", "TYPE_NONE"):
        case "TYPE_X509_PEM_FILE":
            return {"publicKeyData": base64.b64encode(key.certificate).decode()}
        case "TYPE_RAW_PUBLIC_KEY":
            return {"publicKeyData": base64.b64encode(key.public_pem).decode()}
        case _:
            return {}


def _account_body(account: Account) -> Json:
    body: Json = {
        "name": account.path,
        "projectId": account.project,
        "uniqueId": account.unique_id,
        "email": account.email,
        "displayName": account.display_name,
        "description": account.description,
        "oauth2ClientId": account.unique_id,
        "etag": "MDEwMjE5MjA=",
        "disabled": account.disabled,
    }
    return {name: value for name, value in body.items() if value not in ("", False)}


def _key_body(account: Account, key: Key) -> Json:
    body: Json = {
        "name": f"{account.path}/keys/{key.id}",
        "keyAlgorithm": "KEY_ALG_RSA_2048",
        "keyOrigin": key.origin,
        "keyType": "USER_MANAGED",
        "validAfterTime": _time(key.valid_after),
        "validBeforeTime": _time(key.valid_before),
    }
    return body | ({"disabled": True} if key.disabled else {})


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
