"""The engine's protocol over a table of resource types."""

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, NoReturn

import grpc
from google.protobuf import any_pb2, empty_pb2
from google.protobuf.struct_pb2 import Struct
from google.rpc import status_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from infra.local_cloud.provider_programs import values
from infra.local_cloud.provider_programs.configuration import Configuration
from infra.local_cloud.provider_programs.resource import (
    ClientT,
    Found,
    PartialError,
    Properties,
    ProviderError,
    Resource,
    changed_keys,
)

_DETAILS: Final = "grpc-status-details-bin"
_KINDS: Final = {
    ("add", False): provider_pb2.PropertyDiff.ADD,
    ("add", True): provider_pb2.PropertyDiff.ADD_REPLACE,
    ("delete", False): provider_pb2.PropertyDiff.DELETE,
    ("delete", True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    ("update", False): provider_pb2.PropertyDiff.UPDATE,
    ("update", True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}


@dataclass(frozen=True, slots=True)
class ProviderProgram(Generic[ClientT]):
    """A provider.

    Attributes:
        name: its Pulumi package: `hcloud`.
        connect: makes the client that all resources share; raises `ProviderError`.
        resources: its types by token: `hcloud:index/server:Server`.
        functions: what programs can ask of it, by token: `aws:ssm/getParameter:getParameter`.
    """

    name: str
    connect: Callable[[Configuration], ClientT]
    resources: Mapping[str, Callable[[ClientT], Resource[ClientT]]]
    functions: Mapping[str, Callable[[ClientT, Properties], Properties]] = field(
        default_factory=dict
    )

    @property
    def version(self) -> str:
        """Its SDK's version, which the engine asks for and this program says it has."""
        return importlib.metadata.version(f"pulumi_{self.name}")


class ProviderServicer(provider_pb2_grpc.ResourceProviderServicer, Generic[ClientT]):
    """Serves one instance of a provider to one engine."""

    def __init__(self, program: ProviderProgram[ClientT]) -> None:
        self._program = program
        self._resources: dict[str, Resource[ClientT]] = {}
        self._functions: dict[str, Callable[[Properties], Properties]] = {}
        self._cancelled = False

    def GetPluginInfo(
        self, request: empty_pb2.Empty, context: grpc.ServicerContext
    ) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=self._program.version)

    def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(
        self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext
    ) -> provider_pb2.DiffResponse:
        # Another credential or another address of the same account replaces nothing.
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(
        self, request: provider_pb2.ConfigureRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ConfigureResponse:
        with _failures(context):
            client = self._program.connect(Configuration(values.decode(request.args)))
        self._resources = {token: make(client) for token, make in self._program.resources.items()}
        self._functions = {
            token: partial(function, client) for token, function in self._program.functions.items()
        }
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Invoke(
        self, request: provider_pb2.InvokeRequest, context: grpc.ServicerContext
    ) -> provider_pb2.InvokeResponse:
        function = self._functions.get(request.tok)
        if function is None:
            context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                f"The local {self._program.name} provider program does not answer {request.tok}.",
            )
            raise AssertionError
        with _failures(context):
            answer = function(values.decode(request.args))
        response = provider_pb2.InvokeResponse()
        # The field's name is a word of Python's.
        getattr(response, "return").CopyFrom(values.encode(answer))
        return response

    def Check(
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        resource = self._resource(request.urn, context)
        inputs = values.decode(request.news)
        added = {k: v for k, v in resource.defaults(inputs).items() if k not in inputs}
        inputs |= added
        failures = [
            provider_pb2.CheckFailure(property=refusal.key, reason=refusal.reason)
            for refusal in resource.check(inputs)
        ]
        secrets = resource.secret | values.secret_keys(request.news)
        return provider_pb2.CheckResponse(inputs=values.encode(inputs, secrets), failures=failures)

    def Diff(
        self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext
    ) -> provider_pb2.DiffResponse:
        resource = self._resource(request.urn, context)
        old, new = values.decode(request.old_inputs), values.decode(request.news)
        changes = changed_keys(resource, old, new, request.ignoreChanges)
        replaces = sorted(changes.keys() & resource.replace_on)
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME
            if changes
            else provider_pb2.DiffResponse.DIFF_NONE,
            replaces=replaces,
            deleteBeforeReplace=bool(replaces) and resource.delete_before_replace,
            diffs=sorted(changes),
            hasDetailedDiff=True,
            detailedDiff={
                key: provider_pb2.PropertyDiff(
                    kind=_KINDS[change, key in resource.replace_on], inputDiff=True
                )
                for key, change in changes.items()
            },
        )

    def Create(
        self, request: provider_pb2.CreateRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CreateResponse:
        resource = self._resource(request.urn, context)
        inputs, secrets = values.decode(request.properties), _secrets(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=request.properties)
        self._refuse_when_cancelled(context)
        secrets |= resource.secret
        with _failures(context, inputs, secrets):
            resource_id, outputs = resource.create(inputs)
        return provider_pb2.CreateResponse(
            id=resource_id, properties=values.encode(_whole(inputs, outputs), secrets)
        )

    def Read(
        self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ReadResponse:
        resource = self._resource(request.urn, context)
        known = values.decode(request.inputs)
        with _failures(context):
            found = resource.read(request.id, known)
        if found is None:
            return provider_pb2.ReadResponse(id="")
        secrets = resource.secret | _secrets(request.inputs, request.properties)
        inputs = _inputs_read(resource, known, found)
        kept = {key: known[key] for key in resource.unreadable if key in known}
        return provider_pb2.ReadResponse(
            id=found.id,
            inputs=values.encode(inputs, secrets),
            properties=values.encode(_whole(kept, found.outputs), secrets),
        )

    def Update(
        self, request: provider_pb2.UpdateRequest, context: grpc.ServicerContext
    ) -> provider_pb2.UpdateResponse:
        resource = self._resource(request.urn, context)
        outputs, new = values.decode(request.olds), values.decode(request.news)
        secrets = resource.secret | _secrets(request.news, request.olds)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=values.encode(outputs | new, secrets))
        self._refuse_when_cancelled(context)
        old = values.decode(request.old_inputs)
        for key in request.ignoreChanges:
            if key in old:
                new[key] = old[key]
        with _failures(context, new, secrets):
            outputs = resource.update(request.id, outputs, old, new)
        return provider_pb2.UpdateResponse(properties=values.encode(_whole(new, outputs), secrets))

    def Delete(
        self, request: provider_pb2.DeleteRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        resource = self._resource(request.urn, context)
        self._refuse_when_cancelled(context)
        with _failures(context):
            resource.delete(request.id, values.decode(request.properties))
        return empty_pb2.Empty()

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        # What is under way is finished, so that the engine can record it.
        self._cancelled = True
        return empty_pb2.Empty()

    def _resource(self, urn: str, context: grpc.ServicerContext) -> Resource[ClientT]:
        token = urn.split("::")[-2].rsplit("$", maxsplit=1)[-1]
        resource = self._resources.get(token)
        if resource is None:
            context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                f"The local {self._program.name} provider program does not make {token}.",
            )
            raise AssertionError
        return resource

    def _refuse_when_cancelled(self, context: grpc.ServicerContext) -> None:
        if self._cancelled:
            context.abort(grpc.StatusCode.CANCELLED, "The update was cancelled.")


def _secrets(*structs: Struct) -> frozenset[str]:
    return frozenset().union(*map(values.secret_keys, structs))


def _whole(inputs: Properties, outputs: Properties) -> Properties:
    """Return outputs with the inputs that the provider does not tell again."""
    return inputs | outputs


def _inputs_read(resource: Resource[Any], known: Properties, found: Found) -> Properties:
    """Return the inputs that a read came to: what a program did not give is not made an input."""
    if not known:
        return {key: value for key, value in found.inputs.items() if value is not None}
    read = {}
    for key, value in known.items():
        if key in resource.unreadable or key not in found.inputs:
            read[key] = value
        else:
            actual = found.inputs[key]
            read[key] = value if resource.same(key, value, actual) else actual
    by_hand = found.inputs.keys() - known.keys() - resource.computed
    return read | {key: found.inputs[key] for key in by_hand if found.inputs[key]}


@contextmanager
def _failures(
    context: grpc.ServicerContext,
    inputs: Properties | None = None,
    secrets: frozenset[str] = frozenset(),
) -> Iterator[None]:
    """Turn what a resource raises into the engine's words."""
    try:
        yield
    except PartialError as failure:
        detail = any_pb2.Any()
        detail.Pack(
            provider_pb2.ErrorResourceInitFailed(
                id=failure.id,
                properties=values.encode(_whole(inputs or {}, failure.outputs), secrets),
                inputs=values.encode(inputs or {}, secrets),
                reasons=[str(failure)],
            )
        )
        status = status_pb2.Status(code=2, message=str(failure), details=[detail])
        context.set_trailing_metadata(((_DETAILS, status.SerializeToString()),))
        _abort(context, str(failure))
    except ProviderError as failure:
        _abort(context, str(failure))


def _abort(context: grpc.ServicerContext, message: str) -> NoReturn:
    context.abort(grpc.StatusCode.UNKNOWN, message)
    raise AssertionError
