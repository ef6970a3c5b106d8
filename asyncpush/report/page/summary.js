// The page's head, what failed, and what the push waited for.

const OUTCOMES = {
  pushed: ["pushed", "Everything was pushed"],
  "nothing-to-do": ["exists", "Everything was there already"],
  failed: ["failed", "Some of it failed"],
  interrupted: ["refused", "Interrupted"],
};
const STEPS = {
  planning: "reading the sources",
  asking: "asking what is there",
  layer: "uploading",
  mount: "waiting for a mount",
  slot: "waiting for a slot",
  committing: "committing manifests",
  tags: "moving tags",
  ending: "ending",
};
const MOST_EXAMPLES = 3;
// Characters of a title that does not fit in its place in large letters.
const LONG = 40;

function drawHead(report) {
  const { totals } = report;
  const [state, words] = OUTCOMES[report.outcome] || ["other", report.outcome];
  const began = new Date(report.started);
  const when = Number.isNaN(began.valueOf()) ? report.started : began.toISOString();
  const states = Object.entries(totals.images).filter(([, number]) => number > 0);
  const failed = totals.images.failed || 0;
  document
    .getElementById("head")
    .append(
      h(
        "div",
        { class: "title" },
        h("p", { class: "kicker" }, "asyncpush report"),
        h("h1", { class: report.job.length > LONG ? "long" : null }, report.job),
        h(
          "p",
          { class: "when" },
          badge(state, words),
          report.atomic && h("span", { class: "tagged" }, "all or nothing"),
          h(
            "time",
            { datetime: report.started },
            when.replace("T", " ").replace(/\.\d+Z$/, " UTC"),
          ),
        ),
      ),
      h(
        "dl",
        { class: "tiles" },
        tile(
          "Images",
          count(report.images.name.length),
          states.map(([name, number]) => `${count(number)} ${wordOf(name)}`).join(", "),
          failed > 0,
          proportion(states),
        ),
        tile(
          "Took",
          duration(report.seconds),
          `${bytes(totals.bytes_sent / (report.seconds || 1))}/s on average`,
        ),
        tile(
          "Sent",
          bytes(totals.bytes_sent),
          `${plural(totals.blobs_sent, "blob")} in ${plural(totals.parts, "part")}; ${elsewhere(totals)}`,
        ),
        tile(
          "Calls",
          count(totals.calls),
          `${count(totals.throttles)} throttled, ${count(totals.retries)} tried again`,
        ),
      ),
    );
}

/** What did not have to be sent. */
function elsewhere(sums) {
  const mounted = sums.blobs_mounted
    ? `${count(sums.blobs_mounted)} mounted (${bytes(sums.bytes_mounted)}), `
    : "";
  return `${mounted}${count(sums.blobs_existing)} were there`;
}

function tile(name, value, note, bad, extra) {
  return h(
    "div",
    { class: bad ? "tile bad" : "tile" },
    h("dt", {}, name),
    h("dd", {}, h("b", {}, value), h("span", {}, note), extra),
  );
}

/** A bar of the shares of each status. */
function proportion(states) {
  const bar = h("div", { class: "proportion", "aria-hidden": "true" });
  for (const [name, number] of states) {
    const part = h("i", { class: name });
    part.style.flexGrow = number;
    bar.append(part);
  }
  return bar;
}

/** Failures by their kind and advice, the most frequent first. */
function drawFailures(report, show) {
  const groups = new Map();
  report.images.status.forEach((status, i) => {
    if (status !== "failed") return;
    const error = report.images.error[i] || { kind: "unknown", message: "", advice: "" };
    const key = JSON.stringify([error.kind, error.advice]);
    if (!groups.has(key)) groups.set(key, { ...error, images: [] });
    groups.get(key).images.push(i);
  });
  if (!groups.size) return;
  const ordered = [...groups.values()].sort((a, b) => b.images.length - a.images.length);
  section(
    "failures",
    "What failed",
    ordered.map((group) => failure(report, group, show)),
  );
}

function failure(report, group, show) {
  const some = group.images.slice(0, MOST_EXAMPLES);
  const more = group.images.length - some.length;
  return h(
    "article",
    { class: "card failed" },
    h(
      "h3",
      {},
      badge("failed", plural(group.images.length, "image")),
      ` ${group.kind.replaceAll("-", " ")}`,
    ),
    group.advice && h("p", { class: "advice" }, group.advice),
    h(
      "ul",
      {},
      some.map((i) =>
        h(
          "li",
          {},
          h("code", {}, report.images.reference[i]),
          " ",
          (report.images.error[i] || {}).message || "",
        ),
      ),
    ),
    h(
      "button",
      { type: "button", click: () => show(`status:failed error:${group.kind}`) },
      more > 0 ? `Show these and ${count(more)} more below` : "Show below",
    ),
  );
}

function drawPath(report, show) {
  const { causes, steps, findings } = report.analysis;
  if (!steps.length) return;
  const total = report.seconds || 1;
  const strip = h("div", {
    class: "strip",
    role: "img",
    "aria-label": "The critical path over time; its steps are in the table below.",
  });
  for (const step of steps) {
    const part = h("i", {
      class: `k-${step.kind}`,
      title: `${moment(step.begin)} to ${moment(step.end)}: ${STEPS[step.kind] || step.kind}`,
    });
    part.style.left = `${(step.begin / total) * 100}%`;
    part.style.width = `${((step.end - step.begin) / total) * 100}%`;
    strip.append(part);
  }
  section(
    "path",
    "What it waited for",
    h(
      "p",
      { class: "lead" },
      "From the last image to end back to the begin: at each moment, the one thing that the rest waited for. ",
      "Whatever is not on this path could have been slower without anybody's noticing.",
    ),
    strip,
    h(
      "div",
      { class: "legend" },
      [...new Set(steps.map((step) => step.kind))].map((kind) =>
        h("span", { class: "key" }, h("i", { class: `k-${kind}` }), STEPS[kind] || kind),
      ),
    ),
    h(
      "div",
      { class: "columns" },
      h(
        "div",
        { class: "findings" },
        findings.length
          ? findings.map((finding) => findingCard(report, finding, show))
          : h("p", { class: "note" }, "Nothing stands out: no single thing took much of the time."),
      ),
      causeTable(
        causes.filter((cause) => cause.seconds >= 0.01 * total || cause.seconds >= 1),
        total,
      ),
    ),
    h("details", {}, h("summary", {}, "The path, step by step"), stepTable(report, steps, show)),
  );
}

function findingCard(report, finding, show) {
  const digest = finding.blob === null ? null : report.blobs.digest[finding.blob];
  return h(
    "article",
    { class: "card" },
    h("h3", {}, capital(finding.title), h("span", { class: "seconds" }, duration(finding.seconds))),
    h("p", {}, finding.text),
    finding.advice && h("p", { class: "advice" }, finding.advice),
    digest &&
      h("button", { type: "button", click: () => show(`digest:${digest}`) }, "Show its images"),
  );
}

function causeTable(causes, total) {
  const words = {
    planning: "reading the sources",
    asking: "asking which blobs are there",
    sending: "bytes on their way",
    mounting: "waiting for blobs to be mounted",
    slots: "waiting for slots of layers and parts",
    calls: "opening and completing uploads",
    committing: "answers to PutImage",
    ending: "after the last image",
  };
  const called = {
    paced: (cause) => `pace of ${cause.call}`,
    retries: (cause) => `${cause.call}, before it was tried again`,
  };
  return table(
    "Where its time went",
    ["Cause", "Time", "Share"],
    causes.map((cause) => {
      const share = cause.seconds / total;
      return [
        (called[cause.kind] || (() => words[cause.kind] || cause.kind))(cause),
        number(duration(cause.seconds)),
        meter(share, `${Math.round(share * 100)} %`),
      ];
    }),
  );
}

function stepTable(report, steps, show) {
  return table(
    "Steps of the critical path",
    ["From", "To", "What", "Image", "Layer"],
    steps.map((step) => [
      number(duration(step.begin)),
      number(duration(step.end)),
      STEPS[step.kind] || step.kind,
      step.image === null
        ? ""
        : h(
            "button",
            {
              type: "button",
              class: "link",
              click: () => show(report.images.reference[step.image]),
            },
            report.images.reference[step.image],
          ),
      step.blob === null ? "" : h("code", {}, short(report.blobs.digest[step.blob])),
    ]),
  );
}
