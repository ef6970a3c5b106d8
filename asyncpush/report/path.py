"""The critical path of a push: from its end back to its begin through what each step waited for."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from asyncpush.engine.events import host_of, repository_of
from asyncpush.report.document import Blob, CallSeries, Image, Report

StepKind = Literal["planning", "asking", "layer", "mount", "slot", "committing", "tags", "ending"]
CauseKind = Literal[
    "planning",
    "asking",
    "sending",
    "mounting",
    "slots",
    "calls",
    "paced",
    "retries",
    "committing",
    "ending",
]

# Two moments that the engine's own work separates: an end, and the begin that waited for it.
_NEAR = 0.25
# Less than this is no wait for a slot.
_WAIT = 0.02


@dataclass(frozen=True, slots=True)
class Cause:
    """Why time passed; ``call`` is the API's name where one call is the cause."""

    kind: CauseKind
    registry: str = ""
    call: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What the push waited for from ``begin`` to ``end``, in seconds since it began.

    :param image: the image that it was for, by its place in the report.
    :param blob: the blob that was uploaded, by its place in the report.
    :param causes: the seconds of the step by their cause.
    """

    kind: StepKind
    begin: float
    end: float
    image: int | None = None
    blob: int | None = None
    causes: dict[Cause, float] = field(default_factory=dict)


@dataclass(slots=True)
class Path:
    """A critical path: its steps in the order of time, without gaps.

    :param layer_slots: seconds, by registry, in which the path waited for a layer's slot.
    :param image_slots: the same for an image's slot.
    :param shared: blobs on the path that another image brought up, with the image that waited.
    """

    steps: list[Step] = field(default_factory=list)
    layer_slots: dict[str, float] = field(default_factory=dict)
    image_slots: dict[str, float] = field(default_factory=dict)
    shared: dict[int, int] = field(default_factory=dict)

    def causes(self) -> dict[Cause, float]:
        """The seconds of all steps by their cause, the largest first."""
        sums: defaultdict[Cause, float] = defaultdict(float)
        for step in self.steps:
            for cause, seconds in step.causes.items():
                sums[cause] += seconds
        return dict(sorted(sums.items(), key=lambda item: -item[1]))


def critical_path(report: Report) -> Path:
    """What a push waited for. It is empty where the report says nothing of images' times."""
    walk = _Walk(report)
    walk.run()
    walk.path.steps.reverse()
    return walk.path


def option(report: Report, name: str) -> int | None:
    """One of the push's options that are counts, where the report has it."""
    value = report["options"].get(name)
    return value if isinstance(value, int) and value > 0 else None


class _Ends:
    """Places in the report by the moments in which they ended, for one registry."""

    def __init__(self, ends: Sequence[tuple[float, int]]) -> None:
        ordered = sorted(ends)
        self._times = [end for end, _ in ordered]
        self._places = [place for _, place in ordered]

    def until(self, moment: float) -> Iterator[tuple[int, float]]:
        """What ended before a moment, and when, the latest first."""
        for i in range(bisect_right(self._times, moment) - 1, -1, -1):
            yield self._places[i], self._times[i]

    def near(self, moment: float) -> Iterator[int]:
        """What ended near a moment, the nearest first."""
        after = bisect_right(self._times, moment)
        before = after - 1
        while True:
            early = moment - self._times[before] if before >= 0 else _NEAR
            late = self._times[after] - moment if after < len(self._times) else _NEAR
            if min(early, late) >= _NEAR:
                return
            if early <= late:
                yield self._places[before]
                before -= 1
            else:
                yield self._places[after]
                after += 1


@dataclass(frozen=True, slots=True)
class _Spent:
    """Seconds of a call: for its pace, before it was made again, from its turn to its answer."""

    paced: float = 0.0
    delayed: float = 0.0
    seconds: float = 0.0


class _Walk:
    """One walk back through a report."""

    def __init__(self, report: Report) -> None:
        self.path = Path()
        self._report = report
        self._images: list[Image] = report["images"]
        self._blobs: list[Blob] = report["blobs"]
        self._visited: set[tuple[str, int]] = set()
        self._brought: dict[int, int] = {}
        timeline = report.get("timeline")
        self._moving = timeline.get("tags_moving") if timeline is not None else None
        images: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        for place, image in sorted(
            enumerate(self._images), key=lambda item: item[1].get("started", 0.0)
        ):
            if "started" in image and "ended" in image:
                images[host_of(image["reference"])].append((self._slot_left(image), place))
                for blob in image.get("blobs", ()):
                    self._brought.setdefault(blob, place)
        blobs: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        for place, record in enumerate(self._blobs):
            ended = _ended(record)
            if ended is not None:
                blobs[host_of(record["repository"])].append((ended, place))
        commits: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        if any("mounted_from" in record for record in self._blobs):
            for ends in images.values():
                for _, place in ends:
                    image = self._images[place]
                    for commit in image.get("manifests", ()):
                        commits[repository_of(image["reference"])].append((commit["ended"], place))
        self._commits = {repository: _Ends(ends) for repository, ends in commits.items()}
        self._image_ends = {host: _Ends(ends) for host, ends in images.items()}
        self._blob_ends = {host: _Ends(ends) for host, ends in blobs.items()}
        self._timed = [place for ends in images.values() for _, place in ends]

    def run(self) -> None:
        if not self._timed:
            return
        place = max(self._timed, key=lambda place: self._images[place]["ended"])
        now = self._images[place]["ended"]
        self._step("ending", now, max(now, self._report["seconds"]), {Cause("ending"): 1.0})
        if self._moving is not None and self._moving < now:
            self._tags(place, self._moving, now)
            place = max(self._timed, key=lambda place: self._slot_left(self._images[place]))
            now = self._moving
        following: int | None = place
        while following is not None:
            following, now = self._image(following, now)
        # An image's turn may have come while the registry of the first ones was connected to.
        first = min(now, *(self._images[place]["started"] for place in self._timed))
        self._step("asking", first, now, {Cause("asking"): 1.0})
        self._step("planning", 0.0, first, {Cause("planning"): 1.0})

    def _slot_left(self, image: Image) -> float:
        """When an image left its slot to the next: in an atomic push when it was staged."""
        if self._moving is None or image["ended"] <= self._moving:
            return image["ended"]
        commits = image.get("manifests", ())
        staged = (c["ended"] for c in commits if c["ended"] <= (self._moving or 0.0))
        return max(staged, default=image["started"])

    def _tags(self, place: int, moving: float, now: float) -> None:
        """Step back over the second phase of an atomic push."""
        host = host_of(self._images[place]["reference"])
        causes = self._call(host, "PutImage", moving, now, "committing")
        self._step("tags", moving, now, causes, place)

    def _image(self, place: int, now: float) -> tuple[int | None, float]:
        """Step back over an image that left its slot now.

        :return: the image that it had waited for, and when that one left its slot.
        """
        self._visited.add(("image", place))
        image = self._images[place]
        host = host_of(image["reference"])
        blob = self._last_blob(image, now)
        mounted = self._last_mount(image, now)
        brought = max(
            mounted[0] if mounted is not None else 0.0,
            _ended(self._blobs[blob]) or 0.0 if blob is not None else 0.0,
        )
        begun = [c["ended"] - c["seconds"] for c in image.get("manifests", ()) if c["ended"] <= now]
        # Without blobs and commits it failed before, and all of its time was that of questions.
        ready = min(now, brought) or max(image["started"], min(begun, default=now))
        causes = self._call(host, "PutImage", ready, now, "committing")
        self._step("committing", ready, now, causes, place)
        now = ready
        if mounted is not None and mounted[0] == brought:
            source = self._source(image, mounted)
            if source is not None:
                at = min(now, source[1])
                self._step("mount", at, now, {Cause("mounting", host): 1.0}, place, mounted[1])
                return source[0], at
        elif blob is not None:
            place, now = self._layers(place, blob, now)
            image = self._images[place]
        begin = min(now, image["started"])
        causes = self._call(host, "BatchCheckLayerAvailability", begin, now, "asking")
        self._step("asking", begin, now, causes, place)
        for other in self._image_ends[host].near(begin):
            earlier = self._images[other]["started"] < begin - _WAIT
            if earlier and ("image", other) not in self._visited:
                # It had waited for its turn since the push's begin.
                self.path.image_slots.setdefault(host, begin)
                return other, begin
        return None, begin

    def _last_mount(self, image: Image, now: float) -> tuple[float, int] | None:
        """The blob that was mounted for an image last: when, and its place."""
        mounts = [
            (at, place)
            for place in image.get("blobs", ())
            if image["started"] < (at := self._blobs[place].get("mounted_at", 0.0)) <= now + _NEAR
        ]
        return max(mounts, default=None)

    def _source(self, image: Image, mounted: tuple[float, int]) -> tuple[int, float] | None:
        """The image whose commit let a blob be mounted while another waited for it, and when."""
        at, blob = mounted
        commits = self._commits.get(self._blobs[blob].get("mounted_from", ""))
        if commits is None:
            return None
        for other, ended in commits.until(at):
            if ended <= image["started"]:
                return None
            if ("image", other) not in self._visited:
                return other, ended
        return None

    def _last_blob(self, image: Image, now: float) -> int | None:
        """The blob that an image waited for last, if it waited for one."""
        ended = [
            (end, place)
            for place in image.get("blobs", ())
            if (end := _ended(self._blobs[place])) is not None
            and image["started"] < end <= now + _NEAR
            and ("blob", place) not in self._visited
        ]
        return max(ended)[1] if ended else None

    def _layers(self, place: int, blob: int, now: float) -> tuple[int, float]:
        """Step back over a blob and those whose slots it waited for; the image that began them."""
        covered = now
        while True:
            self._visited.add(("blob", blob))
            record = self._blobs[blob]
            started = min(now, record["started"] or 0.0)
            brought = self._brought.get(blob, place)
            if brought != place:
                self.path.shared.setdefault(blob, place)
            place = brought
            self._step("layer", started, now, self._upload(record, started, now), place, blob)
            now = started
            waited = record.get("waited", 0.0)
            before = self._slot(record, place, now)
            if waited > _WAIT:
                host = host_of(record["repository"])
                since = max(0.0, now - waited)
                slots = self.path.layer_slots.get(host, 0.0)
                self.path.layer_slots[host] = slots + max(0.0, min(covered, now) - since)
                covered = min(covered, since)
                if before is None:
                    self._step("slot", since, now, {Cause("slots", host): 1.0}, place)
                    return place, since
            if before is None:
                return place, now
            blob = before

    def _slot(self, record: Blob, place: int, now: float) -> int | None:
        """The blob whose end let another begin: one of the same registry, or of the same image."""
        waited = record.get("waited", 0.0) > _WAIT
        own = self._images[place].get("blobs", ())
        for other in self._blob_ends[host_of(record["repository"])].near(now):
            free = ("blob", other) not in self._visited
            earlier = (self._blobs[other]["started"] or 0.0) < now - _WAIT
            if free and earlier and (waited or other in own):
                return other
        return None

    def _upload(self, blob: Blob, begin: float, end: float) -> dict[Cause, float]:
        """Why an upload took so long: shares of its time by cause."""
        seconds = blob["seconds"] or 0.0
        host = host_of(blob["repository"])
        if seconds <= 0:
            return {Cause("calls", host): 1.0}
        sending, slots = blob.get("sending"), blob.get("slots", 0.0)
        if sending is None:
            return {Cause("sending", host): 1.0}
        causes = {Cause("sending", host): sending, Cause("slots", host): slots}
        gap = max(0.0, seconds - sending - slots)
        waits: defaultdict[Cause, float] = defaultdict(float)
        for call, times in (
            ("InitiateLayerUpload", 1),
            ("UploadLayerPart", blob["parts"]),
            ("CompleteLayerUpload", 1),
        ):
            spent = self._spent(host, call, begin, end)
            waits[Cause("paced", host, call)] = spent.paced * times
            waits[Cause("retries", host, call)] = spent.delayed * times
            if call != "UploadLayerPart":
                waits[Cause("calls", host)] += spent.seconds
        total = sum(waits.values())
        if total <= 0:
            return {**causes, Cause("calls", host): gap}
        return {**causes, **{cause: wait * gap / total for cause, wait in waits.items()}}

    def _call(
        self, host: str, call: str, begin: float, end: float, rest: CauseKind
    ) -> dict[Cause, float]:
        """Why calls took so long: shares of their time by cause."""
        spent = self._spent(host, call, begin, end)
        answers = Cause(rest, host, call if rest == "committing" else "")
        if not spent.paced + spent.delayed + spent.seconds:
            return {answers: 1.0}
        return {
            Cause("paced", host, call): spent.paced,
            Cause("retries", host, call): spent.delayed,
            answers: spent.seconds,
        }

    def _spent(self, host: str, call: str, begin: float, end: float) -> _Spent:
        """What went into one call on average at that time, all its tries together."""
        timeline = self._report.get("timeline")
        series = timeline["registries"].get(host) if timeline is not None else None
        calls = series["calls"].get(call) if series is not None else None
        if timeline is None or calls is None:
            return _Spent()
        first, last = int(begin / timeline["width"]), int(end / timeline["width"]) + 1
        again = _sum(calls, "throttled", first, last) + _sum(calls, "failed", first, last)
        made = max(1.0, sum(calls["calls"][first:last]) - again)
        return _Spent(
            _sum(calls, "paced", first, last) / made,
            _sum(calls, "delayed", first, last) / made,
            _sum(calls, "seconds", first, last) / made,
        )

    def _step(
        self,
        kind: StepKind,
        begin: float,
        end: float,
        causes: dict[Cause, float],
        image: int | None = None,
        blob: int | None = None,
    ) -> None:
        """Note a step; its causes share its seconds as they stand to each other."""
        seconds, total = end - begin, sum(causes.values())
        if seconds <= 0:
            return
        shares = {c: s * seconds / total for c, s in causes.items() if s > 0} if total > 0 else {}
        self.path.steps.append(Step(kind, begin, end, image, blob, shares))


def _ended(blob: Blob) -> float | None:
    started, seconds = blob["started"], blob["seconds"]
    return None if started is None or seconds is None else started + seconds


def _sum(
    calls: CallSeries,
    what: Literal["throttled", "failed", "paced", "delayed", "seconds"],
    first: int,
    last: int,
) -> float:
    return sum(calls.get(what, ())[first:last])
