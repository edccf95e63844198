import base64
import json
import resource

import pytest

from domain.errors import BulkheadError, Reason
from infra.helm.failures import failure_of
from infra.helm.manifest import (
    hooks_of,
    is_test,
    key_of,
    parse_stream,
    redact,
    render_hash,
    restore,
    texts_of,
)
from infra.kubernetes.client import Object

_KEY = b"k" * 32
_CRD = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: a}"


def secret(name: str = "login", **fields: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "space"},
        **fields,
    }


def test_a_stream_is_read_as_kubernetes_reads_it() -> None:
    text = """
# nothing
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, creationTimestamp: null}
data: {time: 12:30, day: 2001-01-01, on: y, octal: 010, exponent: 1e3, word: "y"}
---
---
apiVersion: v1
kind: List
items:
  - {apiVersion: apps/v1, kind: Deployment, metadata: {name: b, namespace: c}}
"""
    first, second = parse_stream(text)
    assert first["data"] == {
        "time": "12:30",
        "day": "2001-01-01",
        "true": True,
        "octal": 8,
        "exponent": 1000,
        "word": "y",
    }
    assert (key_of(first), key_of(second)) == ("/ConfigMap//a", "apps/Deployment/c/b")


def test_a_text_that_stands_for_more_than_memory_holds_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    for text in ("\n".join(lines), "a: &a [*a]", "[" * 5000 + "]" * 5000):
        with pytest.raises(BulkheadError) as refused:
            parse_stream(text)
        assert refused.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "text",
    [
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: ../../secrets/a}}",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: 'a?dryRun='}}",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: ..}}",
        "{apiVersion: ../api/v1, kind: ConfigMap, metadata: {name: a}}",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: [b]}}",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, annotations: b}}",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: [b]}}",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {b: 0x" + "f" * 5000 + "}}",
        '{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {b: "c\\0d"}}',
        '{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {"b\\0": c}}',
        "{apiVersion: v1, kind: Secret, metadata: {name: a}, stringData: {port: 5432}}",
        "{apiVersion: v1, kind: Secret, metadata: {name: a}, data: text}",
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: a}, roleRef: b}",
        _CRD + "}",
        _CRD + ", spec: {group: b, scope: Cluster, names: {kind: C, plural: c}, versions: [v1]}}",
    ],
)
def test_what_can_be_no_object_is_the_charts_fault(text: str) -> None:
    with pytest.raises(BulkheadError) as refused:
        parse_stream(text)
    assert refused.value.reason is Reason.INVALID_ARGUMENT


def test_too_many_values_are_refused_before_they_take_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BulkheadError) as refused:
        parse_stream("a: [" + "b," * 1_000_001 + "b]")
    # In kibibytes; read as a whole, they take 300 MiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert "1,000,000" in str(refused.value)


def test_hooks_and_tests_are_recognised() -> None:
    def with_hook(value: str) -> Object:
        return {"metadata": {"name": "a", "annotations": {"helm.sh/hook": value}}}

    assert hooks_of(with_hook("pre-install, pre-upgrade")) == {"pre-install", "pre-upgrade"}
    assert is_test(with_hook("test"))
    assert not is_test(with_hook("test,post-install"))
    assert not is_test({"metadata": {"name": "a"}})


def test_what_secrets_hold_is_in_no_redacted_object_and_comes_back() -> None:
    encoded = base64.b64encode(b"hunter-2-hunter").decode()
    objects = [
        secret("b", data={"password": encoded}, stringData={"note": "a note of mine"}),
        secret("a", data={"password": encoded, "copy": encoded}),
    ]
    objects[0]["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": encoded
    }
    redacted, data = redact(objects, _KEY)
    text = json.dumps(redacted)
    for hidden in texts_of(data):
        assert hidden not in text
    digests = {datum for obj in redacted for datum in obj["data"].values()}
    assert len(digests) == 3
    restored = restore(redacted, data)
    assert [obj["data"] for obj in restored] == [objects[1]["data"], objects[0]["data"]]
    assert restored[1]["stringData"] == {"note": "a note of mine"}
    with pytest.raises(BulkheadError):
        restore(redacted, {})


def test_the_hash_is_of_what_is_meant_and_not_of_its_order() -> None:
    plain, other = secret("a", data={"x": "YQ=="}), secret("b", data={"x": "YQ=="})
    changed = secret("a", data={"x": "Yg=="})

    def hashed(*objects: Object, key: bytes = _KEY) -> str:
        return render_hash(redact(objects, key)[0])

    assert hashed(plain, other) == hashed(other, plain)
    assert hashed(plain) != hashed(changed)
    assert hashed(plain) != hashed(plain, key=b"o" * 32)


def test_no_error_repeats_what_a_secret_holds() -> None:
    said = (
        'Error: Secret in version "v1" cannot be handled as a Secret: error found in #10 byte of '
        '...|"x":"canary","y|..., bigger context ...|{"x":"canary"}|... of hunter2-hunter2'
    )
    said += r' and "-----BEGIN-----\nkey-of-several-lines\n"'
    lines = "-----BEGIN-----\nkey-of-several-lines\n"
    error = failure_of(said, hidden=["hunter2-hunter2", "x", lines])
    assert "several" not in error.message
    assert "canary" not in error.message
    assert "hunter2" not in error.message
    assert "Secret in version" in error.message
