"""What a push waited for, in words, and what would have made it shorter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import median

from asyncpush.engine.events import host_of
from asyncpush.report.document import Blob, Call, Report
from asyncpush.report.path import Cause, Path, Step, critical_path, option
from asyncpush.text import duration, plural, size

# Less than this share of a push's time is not worth a word, nor is less than this many seconds.
_SHARE = 0.05
_SECONDS = 0.5
# Layers that are so much slower among many than among few have filled the link.
_CROWDED = 1.4
# A layer that takes this share of the time by itself is one to talk about.
_LONG = 0.2


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that took time on the critical path.

    :param title: what it was, in a line.
    :param text: how it came about.
    :param advice: what to do; empty where nothing helps.
    :param seconds: how long the push waited for it.
    :param gain: seconds that the advice may save at most, as far as the report can tell.
    :param blob: the blob that it is about, by its place in the report.
    """

    title: str
    text: str
    advice: str
    seconds: float
    gain: float = 0.0
    blob: int | None = None


@dataclass(frozen=True, slots=True)
class Analysis:
    """A report, understood: the critical path, what was found on it, the slowest blobs."""

    path: Path
    findings: list[Finding] = field(default_factory=list)
    slowest: list[int] = field(default_factory=list)


def analyse(report: Report, slowest: int = 20) -> Analysis:
    """Find out what a push waited for and what would have made it shorter.

    :param slowest: how many of the slowest blobs are listed, by their places in the report.
    """
    path = critical_path(report)
    timed = [(blob["seconds"] or 0.0, -place) for place, blob in enumerate(report["blobs"])]
    worst = [-place for seconds, place in sorted(timed, reverse=True)[:slowest] if seconds > 0]
    found = _Findings(report, path)
    findings = sorted(found.all(), key=lambda finding: (-finding.gain, -finding.seconds))
    return Analysis(path, findings, worst)


class _Findings:
    """The findings of one report, each kind on its own."""

    def __init__(self, report: Report, path: Path) -> None:
        self._report = report
        self._path = path
        self._causes = path.causes()
        self._least = max(_SECONDS, _SHARE * report["seconds"])

    def all(self) -> Iterator[Finding]:
        found = [
            *self._pace(),
            *self._retries(),
            *self._layers(),
            *self._slots(),
            *self._images(),
            *self._planning(),
        ]
        yield from found or self._sending()

    def _pace(self) -> Iterator[Finding]:
        for cause, seconds in self._causes.items():
            call = self._called(cause)
            if cause.kind != "paced" or seconds < self._least or call is None:
                continue
            quota, through = call["quota"], call["calls"] - call["throttled"]
            made = f"{through:,} calls of {cause.call} went through at {cause.registry}"
            most = self._most(cause)
            if most:
                made += f", up to {most:.3g} a second"
            waited = f"The push waited {duration(seconds)} for their turns."
            raised = (
                f"have AWS raise the rate of {cause.call} requests (Service Quotas, Amazon ECR) for"
                f" that account and Region"
            )
            if call["throttled"] > _SHARE * call["calls"]:
                yield Finding(
                    f"{cause.call} was throttled below the {quota:g}/s that the push assumed",
                    f"{made}; {call['throttled']:,} were throttled, so it slowed down. {waited}",
                    f"{raised}, or keep others from using it at the same time; until then pass"
                    f" --quota {cause.call}=RATE with what there is, for an even pace",
                    seconds,
                    seconds / 2,
                )
                continue
            yield Finding(
                f"{cause.call} ran into its quota of {quota:g}/s",
                f"{made}. {waited}",
                f"{raised}, then pass --quota {cause.call}={quota * 2:g}: up to"
                f" {duration(seconds / 2)} less",
                seconds,
                seconds / 2,
            )

    def _retries(self) -> Iterator[Finding]:
        for cause, seconds in self._causes.items():
            call = self._called(cause)
            if cause.kind != "retries" or seconds < self._least or call is None:
                continue
            throttled, failed = call["throttled"], self._failed(cause)
            advice = "look at the network between here and the registry; -v shows every retry"
            if throttled >= failed:
                advice = (
                    "others use the quota as well, or it is smaller than assumed: give what is"
                    f" left for this push with --quota {cause.call}=RATE, or have it raised"
                )
            yield Finding(
                f"{cause.call} was tried again",
                f"{cause.registry} throttled {cause.call} {plural(throttled, 'time')}, and it"
                f" failed in passing {plural(failed, 'time')}. The push waited"
                f" {duration(seconds)} before it made calls again.",
                advice,
                seconds,
                seconds,
            )

    def _layers(self) -> Iterator[Finding]:
        """Single layers that take so long that nothing else could hide it."""
        spent: defaultdict[int, float] = defaultdict(float)
        for step in self._path.steps:
            if step.kind == "layer" and step.blob is not None:
                spent[step.blob] += step.end - step.begin
        for place, seconds in spent.items():
            blob = self._report["blobs"][place]
            if seconds < max(_SECONDS, _LONG * self._report["seconds"]):
                continue
            alone = self._alone(blob)
            if alone < max(_SECONDS, _LONG / 2 * self._report["seconds"]):
                continue
            gain = min(seconds, alone) / 2
            rate = blob["bytes_sent"] / (blob["seconds"] or 1)
            text = (
                f"{blob['digest']} in {blob['repository']} took {duration(blob['seconds'] or 0)} in"
                f" {plural(blob['parts'], 'part')} at {size(rate)}/s. A registry takes the parts of"
                f" a layer in order, so nothing makes one faster; for {duration(alone)} it was the"
                " only one on its way"
            )
            waiting = self._sharing(place)
            if waiting > 1:
                text += f". {waiting:,} images share it and wait for it"
            advice = f"split it: as two layers it could take up to {duration(gain)} less"
            if (blob["started"] or 0) > self._least:
                advice += (
                    f"; or put its image first, so that it begins before"
                    f" {duration(blob['started'] or 0)} have passed"
                )
            title = f"one layer of {size(blob['size'])} took {duration(seconds)} of the time"
            yield Finding(title, text + ".", advice, seconds, gain, place)

    def _slots(self) -> Iterator[Finding]:
        layers = option(self._report, "layers")
        for host, seconds in self._path.layer_slots.items():
            # Where parts lack slots, more layers would only wait there.
            if seconds < self._least or self._causes.get(Cause("slots", host), 0) > seconds / 2:
                continue
            few, full = self._rates_of_a_layer(host, layers or 0)
            text = (
                f"Layers for {host} waited for a slot during {duration(seconds)} of the critical"
                f" path. Bytes went there at {self._rate(host)}"
            )
            advice = f"raise --layers{_more(layers)}, and --parts with it"
            gain = seconds / 4
            if few > full * _CROWDED:
                text += (
                    f". A layer went at {size(few)}/s beside few others, at {size(full)}/s when all"
                    " slots were taken: the link or the processor is the bound, not the slots"
                )
                advice = "push from a machine with a faster link to the registry, or send less"
                gain = 0.0
            elif few > 0 and full > 0:
                text += (
                    f". A layer went as fast among many ({size(full)}/s) as among few"
                    f" ({size(few)}/s): there is room for more"
                )
                advice += f": up to {duration(seconds / 2)} less"
                gain = seconds / 2
            else:
                advice += ": it helps as far as link, processor and registry have room"
            title = f"all{f' {layers}' if layers else ''} layer slots were taken"
            yield Finding(title, f"{text}.", advice, seconds, gain)
        for cause, seconds in self._causes.items():
            if cause.kind != "slots" or seconds < self._least:
                continue
            parts = option(self._report, "parts")
            yield Finding(
                "parts waited for slots",
                f"Layers were open at {cause.registry}, and their parts waited"
                f" {duration(seconds)} for one of {parts or 'the'} part slots, or for memory.",
                f"raise --parts{_more(parts)}, up to what --layers is; where --memory is small,"
                " raise that",
                seconds,
                seconds / 2,
            )

    def _images(self) -> Iterator[Finding]:
        """Images that waited for their turn while nothing else was short."""
        for host, until in self._path.image_slots.items():
            idle = sum(
                seconds
                for step in self._path.steps
                if step.end <= until + _SECONDS
                for cause, seconds in step.causes.items()
                if cause.registry == host and cause.kind in ("asking", "calls", "committing")
            )
            # More images would only wait for what is short already: slots of layers, a quota.
            short = self._path.layer_slots.get(host, 0.0) + sum(
                seconds
                for cause, seconds in self._causes.items()
                if cause.registry == host and cause.kind == "paced"
            )
            if idle < self._least or short > idle / 2:
                continue
            images = option(self._report, "images")
            yield Finding(
                f"all{f' {images}' if images else ''} image slots were taken",
                f"Images for {host} waited for their turn while those before them waited"
                f" {duration(idle)} for answers.",
                f"raise --images{_more(images)}: more images wait side by side",
                idle,
                idle / 2,
            )

    def _planning(self) -> Iterator[Finding]:
        seconds = self._causes.get(Cause("planning"), 0.0)
        if seconds >= max(self._least, 2 * _SECONDS):
            yield Finding(
                "the sources were read before anything was sent",
                f"Reading the manifests of {plural(len(self._report['images']), 'image')} took"
                f" {duration(seconds)}.",
                "keep layouts on a local disk, or let several machines take a share (--shard)",
                seconds,
            )

    def _sending(self) -> Iterator[Finding]:
        """The plain case: it took as long as the bytes took."""
        for cause, seconds in self._causes.items():
            if cause.kind != "sending" or seconds < self._report["seconds"] / 2:
                continue
            yield Finding(
                "most of the time bytes were on their way",
                f"{size(self._report['totals']['bytes_sent'])} were sent; to {cause.registry} they"
                f" went at {self._rate(cause.registry)}.",
                "push from a machine with a faster link to the registry (in its Region), or send"
                " less: layers that images share go once to each repository",
                seconds,
            )

    def _called(self, cause: Cause) -> Call | None:
        registry = self._report["registries"].get(cause.registry)
        return registry["calls"].get(cause.call) if registry else None

    def _failed(self, cause: Cause) -> int:
        timeline = self._report.get("timeline")
        if timeline is None:
            return 0
        return sum(timeline["registries"][cause.registry]["calls"][cause.call].get("failed", ()))

    def _most(self, cause: Cause) -> float:
        """How often a call went through in the second in which it did so most often."""
        timeline = self._report.get("timeline")
        if timeline is None:
            return 0.0
        series = timeline["registries"][cause.registry]["calls"][cause.call]
        throttled = series.get("throttled", [])
        through = [
            made - again for made, again in zip_longest(series["calls"], throttled, fillvalue=0)
        ]
        buckets = max(1, round(1 / timeline["width"]))
        sums = [sum(through[i : i + buckets]) for i in range(0, len(through), buckets)]
        return max(sums, default=0) / (buckets * timeline["width"])

    def _rate(self, host: str) -> str:
        """A registry's throughput: on average, and at its best."""
        timeline = self._report.get("timeline")
        series = timeline["registries"].get(host) if timeline is not None else None
        if timeline is None or series is None or not any(series["bytes"]):
            return "nothing"
        rates = [count / timeline["width"] for count in series["bytes"]]
        busy = [rate for rate in rates if rate > 0]
        return f"{size(sum(busy) / len(busy))}/s on average, {size(max(busy))}/s at most"

    def _rates_of_a_layer(self, host: str, layers: int) -> tuple[float, float]:
        """Bytes a second of a layer among few others, and when nearly all slots were taken."""
        timeline = self._report.get("timeline")
        series = timeline["registries"].get(host) if timeline is not None else None
        if timeline is None or series is None:
            return 0.0, 0.0
        few, full = [], []
        for count, flying in zip(series["bytes"], series["layers"], strict=False):
            if flying >= 0.9 * layers > 0:
                full.append(count / timeline["width"] / flying)
            elif 0.5 < flying <= 0.5 * layers:
                few.append(count / timeline["width"] / flying)
        return (median(few) if few else 0.0), (median(full) if full else 0.0)

    def _alone(self, blob: Blob) -> float:
        """Seconds during which a blob was the only one on its way to its registry."""
        timeline = self._report.get("timeline")
        series = timeline["registries"].get(host_of(blob["repository"])) if timeline else None
        if timeline is None or series is None or blob["started"] is None:
            return 0.0
        width = timeline["width"]
        first = int(blob["started"] / width)
        last = int((blob["started"] + (blob["seconds"] or 0.0)) / width)
        return width * sum(0 < layers <= 1.05 for layers in series["layers"][first : last + 1])

    def _sharing(self, place: int) -> int:
        return sum(place in image.get("blobs", ()) for image in self._report["images"])


def _more(bound: int | None) -> str:
    return f" (it was {bound}) to {bound * 2}" if bound else ""


def steps_for_people(path: Path, most: int = 60) -> list[Step]:
    """A path's steps, neighbours put together where there are more than can be looked at.

    A step that several were put together to has the kind, image and blob of its longest.
    """
    steps = path.steps
    while len(steps) > most:
        steps = [_joined(steps[i : i + 2]) for i in range(0, len(steps), 2)]
    return steps


def _joined(steps: list[Step]) -> Step:
    longest = max(steps, key=lambda step: step.end - step.begin)
    causes: defaultdict[Cause, float] = defaultdict(float)
    for step in steps:
        for cause, seconds in step.causes.items():
            causes[cause] += seconds
    begin, end = steps[0].begin, steps[-1].end
    return Step(longest.kind, begin, end, longest.image, longest.blob, dict(causes))
