"""Whether a request is let in: its signature, its key, and what the key's user may do.

moto can check signatures and policies; that is used here, and what it leaves out is added: keys
that are inactive or too new, old signatures, resources, and the right to pass a role.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from moto.core.request import Request
from moto.iam.access_control import IAMPolicy, IAMRequest, IAMUserAccessKey, PermissionResult
from moto.iam.models import AccessKey
from werkzeug.exceptions import HTTPException

from infra.local_cloud.aws.accounts import ACCOUNTS, PARTITION, Account
from infra.local_cloud.aws.answers import RefusedError

_SCOPE: Final = re.compile(r"Credential=([A-Z0-9]+)/([0-9]{8})/([a-z0-9-]+)/([a-z0-9-]+)/")
_VALID_FOR: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that is let in.

    Attributes:
        account: whose it is.
        user: who asks.
        service: in the words of signatures: `ec2`, `iam`, ...
        region: which.
        action: `RunInstances`.
        form: its parameters, when it has a form.
    """

    account: Account
    user: str
    service: str
    region: str
    action: str
    form: Mapping[str, str]


def service_of(request: Request) -> str:
    """Return the service that a request names in its signature; empty: none."""
    scope = _SCOPE.search(request.headers.get("Authorization", ""))
    return scope[4] if scope else ""


def action_of(request: Request) -> str:
    """Return what a request asks for; empty: nothing."""
    target = request.headers.get("X-Amz-Target", "").rsplit(".", maxsplit=1)[-1]
    return str(request.form.get("Action", "")) or target


def let_in(request: Request) -> Call:
    """Return what a request asks, and who.

    Raises:
        RefusedError: it is not signed with a key of an account, or its user may not.
    """
    scope = _SCOPE.search(request.headers.get("Authorization", ""))
    if scope is None:
        message = "Request is missing Authentication Token"
        raise RefusedError("MissingAuthenticationToken", message)
    key_id, _, region, service = scope.groups()
    # Read before the form is, which would leave nothing of it.
    body = request.get_data()
    ec2 = service == "ec2"
    account, key = _find(key_id, ec2=ec2)
    call = Call(account, str(key.user_name), service, region, action_of(request), request.form)
    checked = IAMRequest(
        account_id=account.id,
        method=request.method,
        path=request.path,
        data={},
        body=body,
        headers=dict(request.headers),
        action=call.action,
    )
    try:
        checked.check_signature()
    except HTTPException:
        raise _refused_signature(ec2=ec2) from None
    _check_age(request, ec2=ec2)
    _check_allowed(call)
    return call


def is_allowed(account: Account, user: str, action: str, resource: str) -> bool:
    """Tell whether a user's policies allow an action, with an explicit denial winning."""
    key = next(iter(account.iam.users[user].access_keys))
    policies = IAMUserAccessKey(account.id, PARTITION, key.access_key_id, {}).collect_policies()
    results = [IAMPolicy(policy).is_action_permitted(action, resource) for policy in policies]
    return PermissionResult.PERMITTED in results and PermissionResult.DENIED not in results


def _find(key_id: str, *, ec2: bool) -> tuple[Account, AccessKey]:
    for account in list(ACCOUNTS.values()):
        key = account.iam.access_keys.get(key_id)
        user = None if key is None else account.iam.users.get(str(key.user_name))
        if key is None or user is None:
            continue
        dead = key.status != "Active" or key not in user.access_keys
        dead = dead or account.faults.is_dead(key_id)
        if not dead and account.is_known(key_id):
            return account, key
    if ec2:
        raise _refused_signature(ec2=True)
    message = "The security token included in the request is invalid."
    raise RefusedError("InvalidClientTokenId", message)


def _refused_signature(*, ec2: bool) -> RefusedError:
    if ec2:
        return RefusedError(
            "AuthFailure", "AWS was not able to validate the provided access credentials"
        )
    return RefusedError(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check "
        "your AWS Secret Access Key and signing method.",
    )


def _check_age(request: Request, *, ec2: bool) -> None:
    date = request.headers.get("X-Amz-Date", "")
    try:
        signed = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise _refused_signature(ec2=ec2) from None
    if abs(datetime.now(UTC) - signed) > _VALID_FOR:
        if ec2:
            raise RefusedError("RequestExpired", "Request has expired.")
        raise RefusedError("SignatureDoesNotMatch", f"Signature expired: {date} is too old.")


def _check_allowed(call: Call) -> None:
    if (call.service, call.action) == ("sts", "GetCallerIdentity"):
        return
    wanted = [(f"{call.service}:{call.action}", _resource(call))]
    wanted += [("iam:PassRole", role) for role in _passed_roles(call)]
    for action, resource in wanted:
        if is_allowed(call.account, call.user, action, resource):
            continue
        arn = f"arn:aws:iam::{call.account.id}:user/{call.user}"
        told = (
            f"User: {arn} is not authorized to perform: {action} on resource: {resource} because "
            f"no identity-based policy allows the {action} action"
        )
        if call.service == "ec2":
            message = f"You are not authorized to perform this operation. {told}"
            raise RefusedError("UnauthorizedOperation", message)
        raise RefusedError("AccessDenied", told)


def _resource(call: Call) -> str:
    """Return the resource that a policy is held against; all but IAM's are one here."""
    start = f"arn:aws:iam::{call.account.id}"
    iam, form = call.account.iam, call.form
    if call.service != "iam" or call.action in {"ListRoles", "ListInstanceProfiles"}:
        return "*"
    if "InstanceProfileName" in form:
        name = form["InstanceProfileName"]
        profile = next((p for p in iam.instance_profiles.values() if p.name == name), None)
        return f"{start}:instance-profile{profile.path if profile else form.get('Path', '/')}{name}"
    if "RoleName" in form:
        name = form["RoleName"]
        role = next((r for r in iam.roles.values() if r.name == name), None)
        return f"{start}:role{role.path if role else form.get('Path', '/')}{name}"
    if call.action == "SimulatePrincipalPolicy":
        return form.get("PolicySourceArn", "*")
    return f"{start}:user/{form.get('UserName', call.user)}"


def _passed_roles(call: Call) -> list[str]:
    iam, form = call.account.iam, call.form
    if (call.service, call.action) == ("iam", "AddRoleToInstanceProfile"):
        return [role.arn for role in iam.roles.values() if role.name == form.get("RoleName")]
    if (call.service, call.action) == ("ec2", "RunInstances"):
        name, arn = form.get("IamInstanceProfile.Name"), form.get("IamInstanceProfile.Arn")
        profiles = [p for p in iam.instance_profiles.values() if p.name == name or p.arn == arn]
        return [role.arn for profile in profiles for role in profile.roles]
    return []
