// Tables: calls against their quotas, the slowest layers, warnings, settings.

/** A table; columns whose first cell is a number are aligned at their right. */
function table(caption, heads, rows, attributes) {
  const numeric = (rows[0] || []).map(
    (cell) => cell instanceof Element && cell.className === "number",
  );
  const right = (i) => (numeric[i] ? "right" : null);
  return h(
    "div",
    { class: "table", tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      attributes || {},
      h("caption", {}, caption),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map((head, i) => h("th", { scope: "col", class: right(i) }, head)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((cells) =>
          h(
            "tr",
            {},
            cells.map((cell, i) =>
              h(i ? "td" : "th", { scope: i ? null : "row", class: right(i) }, cell),
            ),
          ),
        ),
      ),
    ),
  );
}

function number(text) {
  return h("span", { class: "number" }, text);
}

/** A share as a bar with its figure. */
function meter(share, text, bad) {
  const bar = h("i", { class: bad ? "full" : "" });
  bar.style.width = `${Math.min(100, Math.max(0, share * 100))}%`;
  return h(
    "span",
    { class: "meter" },
    h("span", { class: "track", "aria-hidden": "true" }, bar),
    number(text),
  );
}

function drawCalls(report) {
  const hosts = report.hosts.filter((host) => own(report.registries, host));
  if (!hosts.length) return;
  section(
    "calls",
    "Calls and quotas",
    hosts.map((host) => registryCalls(report, host)),
  );
}

function registryCalls(report, host) {
  const registry = report.registries[host];
  const { timeline } = report;
  const series = ((timeline && own(timeline.registries, host)) || { calls: {} }).calls;
  const states = Object.entries(registry.images).filter(([, number]) => number > 0);
  const rows = Object.entries(registry.calls).map(([name, call]) => {
    const over = own(series, name) || { calls: [] };
    const through = over.calls.map((made, i) => made - ((over.throttled || [])[i] || 0));
    const most = timeline ? busiest(through, timeline.width) : call.rate || 0;
    const share = call.quota > 0 ? most / call.quota : 0;
    const known = call.quota < 100000;
    return [
      name,
      number(count(call.calls)),
      number(call.rate === null ? "" : rate(call.rate)),
      number(most ? rate(most) : ""),
      known ? number(count(call.quota)) : number("none known"),
      known ? meter(share, `${Math.round(share * 100)} %`, share >= 0.9) : "",
      call.throttled ? badge("refused", count(call.throttled)) : number("0"),
      number(count(sum(over.failed))),
      number(over.seconds ? duration(sum(over.seconds) / (call.calls || 1)) : ""),
      number(duration(sum(over.paced) / (call.calls || 1))),
      timeline && over.calls.length > 1
        ? spark(
            over.calls.map((made) => made / timeline.width),
            (over.throttled || []).map((made) => made / timeline.width),
            call.quota,
            `${name} over time, ${rate(most)} a second at most, ${count(call.throttled)} throttled`,
          )
        : "",
    ];
  });
  return h(
    "div",
    { class: "registry" },
    h("h3", {}, place(host)),
    h(
      "p",
      { class: "note" },
      states.map(([name, number]) => badge(name, `${count(number)} ${wordOf(name)}`)),
      ` ${bytes(registry.bytes_sent)} in ${plural(registry.parts, "part")}; blobs: ` +
        `${count(registry.blobs_sent)} sent, ${elsewhere(registry)}, ${count(registry.blobs_failed)} failed`,
    ),
    table(
      `Calls to ${host}; rates are calls a second`,
      [
        "Call",
        "Calls",
        "Mean rate",
        "Most",
        "Quota",
        "Most of the quota",
        "Throttled",
        "Failed in passing",
        "Mean answer",
        "Mean wait for its pace",
        "Over time",
      ],
      rows,
      { class: "calls" },
    ),
  );
}

/** Calls a second, in the second that had most of them. */
function busiest(values, width) {
  const buckets = Math.max(1, Math.round(1 / width));
  let most = 0;
  for (let i = 0; i < values.length; i += buckets) {
    most = Math.max(most, sum(values.slice(i, i + buckets)) / (buckets * width));
  }
  return most;
}

function drawSlowest(report, show) {
  const { blobs } = report;
  const places = report.analysis.slowest;
  if (!places.length) return;
  const sharing = new Map(places.map((i) => [i, 0]));
  for (const named of report.images.blobs) {
    for (const i of named || []) {
      if (sharing.has(i)) sharing.set(i, sharing.get(i) + 1);
    }
  }
  section(
    "slowest",
    "Slowest layers",
    table(
      "The layers that took longest, from the slot that they got to their proof",
      [
        "Layer",
        "Repository",
        "Registry",
        "Size",
        "Parts",
        "Began",
        "Took",
        "Speed",
        "Waited",
        "Images",
      ],
      places.map((i) => {
        const [host, repository] = split(blobs.repository[i]);
        const digest = blobs.digest[i];
        return [
          h(
            "button",
            { type: "button", class: "link", title: digest, click: () => show(`digest:${digest}`) },
            h("code", {}, short(digest)),
          ),
          repository,
          place(host),
          number(bytes(blobs.size[i])),
          number(count(blobs.parts[i])),
          number(duration(blobs.started[i] || 0)),
          number(duration(blobs.seconds[i])),
          number(`${bytes(blobs.bytes_sent[i] / (blobs.seconds[i] || 1))}/s`),
          number(duration((blobs.waited[i] || 0) + (blobs.slots[i] || 0))),
          number(count(sharing.get(i))),
        ];
      }),
    ),
  );
}

const MOST_REPLICATED = 50;

/** What waiting for replication found; what is not complete comes first. */
function drawReplication(report, show) {
  const { replication } = report;
  if (!replication) return;
  const open = replication.images.filter((image) => image.status !== "complete");
  const listed = open.slice(0, MOST_REPLICATED);
  const counts = Object.entries(replication.counts).filter(([, number]) => number > 0);
  section(
    "replication",
    "Replication",
    h(
      "p",
      { class: "note" },
      counts.map(([name, number]) => badge(name, `${count(number)} ${wordOf(name)}`)),
      ` after ${duration(replication.seconds)}${replication.complete ? "" : ", when it was interrupted"}`,
    ),
    listed.length > 0 &&
      table(
        `Images that are not replicated everywhere${open.length > listed.length ? `, the first ${MOST_REPLICATED} of ${count(open.length)}` : ""}`,
        ["Image", "Status", "Destinations"],
        listed.map((image) => [
          h(
            "button",
            { type: "button", class: "link", click: () => show(image.reference) },
            image.reference,
          ),
          badge(image.status),
          image.error ? image.error.message : destinations(image),
        ]),
      ),
  );
}

function destinations(image) {
  return image.destinations
    .map((to) => {
      const code = to.failure_code ? `, ${to.failure_code}` : "";
      return `${to.account} · ${to.region}: ${wordOf(to.status)}${code}`;
    })
    .join("; ");
}

function drawWarnings(report) {
  if (!report.warnings.length) return;
  section(
    "warnings",
    "Warnings",
    h(
      "ul",
      {},
      report.warnings.map((text) => h("li", {}, text)),
    ),
  );
}

function drawSettings(report) {
  const pairs = (object) =>
    Object.entries(object)
      .filter(([, value]) => value !== null && typeof value !== "object")
      .map(([key, value]) => [key.replaceAll("_", " "), String(value)]);
  section(
    "settings",
    "Settings and surroundings",
    h(
      "div",
      { class: "columns even" },
      table("Options of the push", ["Option", "Value"], pairs(report.options)),
      table(
        "Where it ran",
        ["What", "Value"],
        [["asyncpush", report.asyncpush], ...pairs(report.environment)],
      ),
    ),
  );
}
