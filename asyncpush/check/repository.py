"""One repository: whether it is there, which blobs it has, which actions on it are allowed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from asyncpush.check.findings import Outcome, RepositoryState, Severity, Subject
from asyncpush.check.surroundings import Surroundings
from asyncpush.check.target import Target
from asyncpush.engine.questions import BATCH
from asyncpush.errors import AccessDeniedError, AsyncpushError, RepositoryNotFoundError
from asyncpush.oci.digest import Digest
from asyncpush.registries.ecr.probe import EcrProbe

_CHECK = "BatchCheckLayerAvailability"
INITIATE = "InitiateLayerUpload"


class RepositoryCheck:
    """Checks the repositories of one registry, each by itself."""

    def __init__(self, probe: EcrProbe, around: Surroundings) -> None:
        self._probe = probe
        self._around = around

    async def run(
        self, target: Target, state: RepositoryState
    ) -> dict[Digest, bool] | AsyncpushError:
        """Find out about one repository.

        :param state: takes what is found.
        :return: which of the target's blobs are there, or why that is not known.
        """
        name = target.repository.name
        available = await self._available(target, state)
        # No call proves it without opening an upload.
        state.actions[INITIATE] = Outcome.UNKNOWN
        for action, prove in (
            ("UploadLayerPart", self._probe.upload_part),
            ("CompleteLayerUpload", self._probe.complete_upload),
            ("PutImage", self._probe.put_manifest),
        ):
            await self._ask(action, state, partial(prove, name))
        return available

    async def _available(
        self, target: Target, state: RepositoryState
    ) -> dict[Digest, bool] | AsyncpushError:
        found: set[Digest] = set()
        for batch in _batches(target.blobs) or [[self._probe.nothing]]:
            ask = partial(self._look, target.repository.name, batch, found)
            error = await self._ask(_CHECK, state, ask)
            if error is not None:
                return error
        return {digest: digest in found for digest in target.blobs}

    async def _look(self, name: str, batch: Sequence[Digest], found: set[Digest]) -> bool:
        found |= await self._probe.available(name, batch)
        return True

    async def _ask(
        self, action: str, state: RepositoryState, ask: Callable[[], Awaitable[bool]]
    ) -> AsyncpushError | None:
        """Ask, and note what the answer says of the action and of the repository."""
        where = str(state.repository)
        try:
            state.exists = await self._around.call(action, where, ask)
        except RepositoryNotFoundError as exc:
            # It was looked for, so the action is allowed.
            state.actions[action] = Outcome.ALLOWED
            state.exists = False
            return exc
        except AccessDeniedError as exc:
            state.actions[action] = Outcome.DENIED
            self._around.add(
                Severity.PROBLEM, Subject.ACTION, exc, where=where, action=f"ecr:{action}"
            )
            return exc
        except AsyncpushError as exc:
            state.actions[action] = Outcome.UNKNOWN
            self._around.add(
                Severity.UNKNOWN, Subject.ACTION, exc, where=where, action=f"ecr:{action}"
            )
            return exc
        state.actions[action] = Outcome.ALLOWED
        return None


def _batches(digests: Sequence[Digest]) -> list[Sequence[Digest]]:
    return [digests[i : i + BATCH] for i in range(0, len(digests), BATCH)]
