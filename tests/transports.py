"""The same push by either API of ECR: what tests that run over both have in common."""

from __future__ import annotations

from collections.abc import Iterable

from asyncpush.localregistry import CallInfo, CallLog, CallRecord

# What ECR's own API calls that which is asked over /v2/. The last chunk completes an upload.
_NATIVE = {
    "v2.HeadBlob": {"BatchCheckLayerAvailability"},
    "v2.StartUpload": {"InitiateLayerUpload"},
    "v2.MountBlob": {"InitiateLayerUpload"},
    "v2.PatchUpload": {"UploadLayerPart"},
    "v2.PutUpload": {"UploadLayerPart", "CompleteLayerUpload"},
    "v2.PutManifest": {"PutImage"},
    "v2.HeadManifest": {"BatchGetImage"},
    "v2.GetManifest": {"BatchGetImage"},
}


def does(action: str, *names: str) -> bool:
    """Whether a call, of whichever API, does what one of these calls of ECR's own API does."""
    return not _NATIVE.get(action, {action}).isdisjoint(names)


def tag_of(call: CallInfo) -> str | None:
    """The tag that a manifest is put under."""
    if call.action != "v2.PutManifest":
        return call.params.get("imageTag")
    reference = str(call.params["ref"])
    return None if reference.startswith("sha256:") else reference


def count(calls: CallLog, name: str) -> int:
    """How often a call of ECR's own API, or what does the same, was made."""
    return sum(n for action, n in calls.counters.calls.items() if does(action, name))


def names_of(calls: CallLog) -> set[str]:
    """All that was called, under the names of ECR's own API where there are such."""
    return {
        name
        for action in calls.counters.calls
        for name in (_NATIVE.get(action, {action}) - {"CompleteLayerUpload"})
    }


def parts(calls: Iterable[CallRecord]) -> list[CallRecord]:
    """The calls that carried bytes of layers."""
    return [call for call in calls if does(call.action, "UploadLayerPart")]
