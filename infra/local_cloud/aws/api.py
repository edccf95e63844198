"""AWS's API on loopback. Every service is at one address, as its clients' `endpoint_url`."""

import json
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from moto.core.request import Request
from moto.iam.responses import IamResponse
from moto.sts.responses import TokenResponse

from infra.local_cloud.aws import accounts
from infra.local_cloud.aws.accounts import MOTO_LOCK, REGIONS
from infra.local_cloud.aws.answers import SERVER_ERRORS, Answer, RefusedError, refusal
from infra.local_cloud.aws.authority import Call, action_of, is_allowed, let_in, service_of
from infra.local_cloud.aws.ec2 import install
from infra.local_cloud.aws.images import UBUNTU_PARAMETER, ImageRequests, ubuntu_image
from infra.local_cloud.aws.prices import price_list
from infra.local_cloud.fault_middleware import WsgiFaults
from infra.local_cloud.faults import FaultKind, Faults, RefusedCall
from infra.local_cloud.serving import ApiOptions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_MOTO: Final = {"ec2": ImageRequests, "iam": IamResponse, "sts": TokenResponse}
_CODE: Final = re.compile(r"<Code>([\w.]+)</Code>")
_TAGS: Final = re.compile(rb"<tagSet>.*</tagSet>", re.DOTALL)
_STANDARD_CPUS: Final = "L-1216C47A"
# IAM's new things that other services know only after a while, by the call that makes them.
_SPREADING: Final = {
    "CreateAccessKey": re.compile(r"<AccessKeyId>(\w+)</AccessKeyId>"),
    "CreateInstanceProfile": re.compile(r"<InstanceProfileName>([^<]+)</InstanceProfileName>"),
}


class _Request(Request):
    # The server in front says the date.
    from_wsgi_server = True


def create_app(options: ApiOptions) -> WsgiFaults:
    """Return the API, with accounts made at `/_accounts` and faults at `/_faults`."""
    install()
    faults = Faults()
    return WsgiFaults(_Api(options, faults), faults, _refuse, _name)


class _Api:
    def __init__(self, options: ApiOptions, faults: Faults) -> None:
        self._options = options
        self._faults = faults

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        request = _Request(environ)
        if request.path == accounts.CONTROL_PATH:
            status, body = accounts.control(self._options, self._faults, request.get_data())
            answer = Answer(status, "application/json", body)
        else:
            answer = _answer(request)
        phrase = HTTPStatus(answer.status).phrase
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
        ]
        start_response(f"{answer.status} {phrase}", headers)
        return [answer.body]


def _answer(request: Request) -> Answer:
    try:
        with MOTO_LOCK:
            call = let_in(request)
            own = _OWN.get((call.service, call.action))
            if own is not None:
                return own(call, request)
            if call.service == "ec2" and call.region not in REGIONS:
                message = "AWS was not able to validate the provided access credentials"
                raise RefusedError("AuthFailure", message)
            if call.service == "ec2" and call.form.get("DryRun") == "true":
                message = "Request would have succeeded, but DryRun flag is set."
                raise RefusedError("DryRunOperation", message)
            return _known_by_now(call, _ask_moto(call, request))
    except RefusedError as refused:
        return refusal(service_of(request), refused.code, str(refused))


def _ask_moto(call: Call, request: Request) -> Answer:
    service = _MOTO.get(call.service)
    if service is None:
        message = f"The local AWS has no {call.service}."
        raise RefusedError("UnknownOperationException", message)
    request.environ["HTTP_X_MOTO_ACCOUNT_ID"] = call.account.id
    try:
        status, headers, body = service.dispatch(request)
    except NotImplementedError as error:
        raise RefusedError("InvalidAction", str(error)) from None
    text = body.decode() if isinstance(body, bytes) else body
    code = _CODE.search(text)
    if code is not None and code[1] in SERVER_ERRORS:
        status = SERVER_ERRORS[code[1]]
    spreading = _SPREADING.get(call.action)
    if spreading is not None and (made := spreading.search(text)) and status == HTTPStatus.OK:
        call.account.spreads(made[1])
    return Answer(status, headers.get("Content-Type", "text/xml"), text.encode())


def _get_service_quota(call: Call, request: Request) -> Answer:
    asked = json.loads(request.get_data())
    if asked.get("QuotaCode") != _STANDARD_CPUS:
        message = "The request failed because the specified quota does not exist."
        raise RefusedError("NoSuchResourceException", message)
    quota = {"QuotaCode": _STANDARD_CPUS, "ServiceCode": "ec2", "Value": call.account.vcpus}
    return _json({"Quota": quota})


def _get_products(_call: Call, request: Request) -> Answer:
    return _json(price_list(json.loads(request.get_data())))


def _get_parameter(call: Call, request: Request) -> Answer:
    name = json.loads(request.get_data()).get("Name")
    for architecture in ("amd64", "arm64"):
        if name == UBUNTU_PARAMETER.format(architecture):
            value = ubuntu_image(call.region, architecture)
            return _json({"Parameter": {"Name": name, "Type": "String", "Value": value}})
    raise RefusedError("ParameterNotFound", "")


def _simulate(call: Call, _request: Request) -> Answer:
    user = call.form["PolicySourceArn"].rsplit("/", maxsplit=1)[-1]
    resource = call.form.get("ResourceArns.member.1", "*")
    results = ""
    for key, action in call.form.items():
        if key.startswith("ActionNames.member."):
            allowed = is_allowed(call.account, user, action, resource)
            decision = "allowed" if allowed else "implicitDeny"
            results += (
                f"<member><EvalActionName>{escape(action)}</EvalActionName>"
                f"<EvalDecision>{decision}</EvalDecision></member>"
            )
    body = (
        '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        "<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated>"
        f"<EvaluationResults>{results}</EvaluationResults></SimulatePrincipalPolicyResult>"
        "</SimulatePrincipalPolicyResponse>"
    )
    return Answer(HTTPStatus.OK, "text/xml", body.encode())


def _known_by_now(call: Call, answer: Answer) -> Answer:
    """Return an answer without what EC2 tells only some time after it was made."""
    if (call.service, call.action) != ("ec2", "DescribeTags"):
        return answer
    if call.account.faults.strikes(FaultKind.LATE, f"POST / {call.action}") is None:
        return answer
    body = _TAGS.sub(b"<tagSet/>", answer.body)
    return Answer(answer.status, answer.content_type, body)


_OWN: Final[dict[tuple[str, str], Callable[[Call, Request], Answer]]] = {
    ("iam", "SimulatePrincipalPolicy"): _simulate,
    ("pricing", "GetProducts"): _get_products,
    ("servicequotas", "GetServiceQuota"): _get_service_quota,
    ("ssm", "GetParameter"): _get_parameter,
}


def _json(value: object) -> Answer:
    return Answer(HTTPStatus.OK, "application/x-amz-json-1.1", json.dumps(value).encode())


def _name(environ: "WSGIEnvironment", body: bytes) -> str:
    """Name a call for faults: EC2's by the action alone, others' with their service."""
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    request = _Request.from_primitives(
        method,
        f"http://local{path}",
        {
            "Authorization": environ.get("HTTP_AUTHORIZATION", ""),
            "X-Amz-Target": environ.get("HTTP_X_AMZ_TARGET", ""),
        },
    )
    service = service_of(request)
    target = action_of(request)
    action = target or next(iter(parse_qs(body.decode(errors="replace")).get("Action", [])), "")
    return f"{method} {path} {action if service == 'ec2' else f'{service}:{action}'}"


def _refuse(kind: FaultKind, call: str) -> RefusedCall:
    service, _, _ = call.rsplit(" ", maxsplit=1)[-1].partition(":")
    service = service if ":" in call else "ec2"
    ec2 = service == "ec2"
    if kind is FaultKind.RATE_LIMIT:
        code, message = ("RequestLimitExceeded", "Request limit exceeded.")
        if not ec2:
            code, message = ("Throttling", "Rate exceeded")
    else:
        code = "Unavailable" if ec2 else "ServiceUnavailable"
        message = "The service is unavailable. Please try again shortly."
    answer = refusal(service, code, message)
    return RefusedCall(answer.status, answer.body, {"Content-Type": answer.content_type})
