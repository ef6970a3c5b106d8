// What went on over time, for all registries: bytes, layers in flight, commits; one cursor for all.

const COLOURS = 6;

class Charts {
  constructor(report) {
    this.report = report;
    this.timeline = report.timeline;
    this.width = this.timeline.width;
    this.buckets = Math.max(1, Math.ceil(report.seconds / this.width));
    this.hosts = report.hosts.filter((host) => own(this.timeline.registries, host));
    this.charts = [];
    this.at = null;
    this.readout = h("output", { class: "readout", "aria-live": "polite" });
  }

  draw(onZoom) {
    const series = (pick) =>
      this.hosts.map((host) => this.padded(pick(this.timeline.registries[host])));
    const commits = (registry) => (registry.calls.PutImage || {}).calls;
    const perSecond = (values) => values.map((value) => value / this.width);
    const panels = [
      ["Bytes a second", series((r) => r.bytes).map(perSecond), (v) => `${bytes(v)}/s`],
      ["Layers in flight", series((r) => r.layers), (v) => rate(v)],
      ["Images in flight", series((r) => r.images), (v) => rate(v)],
      ["PutImage calls a second", series(commits).map(perSecond), (v) => `${rate(v)}/s`],
    ];
    section(
      "time",
      "Over time",
      h(
        "div",
        { class: "legend" },
        this.hosts.map((host, i) => legendOf(host, i)),
      ),
      h(
        "div",
        { class: "charts" },
        panels.map((panel) => this.chart(...panel, onZoom)),
      ),
      this.readout,
    );
    this.say(null);
  }

  padded(values) {
    return Array.from({ length: this.buckets }, (_, i) => (values || [])[i] || 0);
  }

  chart(title, series, format, onZoom) {
    const sums = series[0] ? series[0].map((_, i) => sum(series.map((one) => one[i]))) : [];
    const most = Math.max(...sums, 0);
    const busy = sums.filter((value) => value > 0);
    const mean = busy.length ? sum(busy) / busy.length : 0;
    const cursor = s("line", { class: "cursor", y1: 0, y2: 100, visibility: "hidden" });
    const drawing = s(
      "svg",
      {
        viewBox: `0 0 ${this.buckets} 100`,
        preserveAspectRatio: "none",
        role: "img",
        tabindex: 0,
        "aria-label": `${title}: ${format(mean)} on average, ${format(most)} at most. Arrow keys read single moments.`,
      },
      [25, 50, 75].map((y) => s("line", { class: "rule", x1: 0, x2: this.buckets, y1: y, y2: y })),
      stacked(series, most).map((path, i) => s("path", { d: path, class: `c${i % COLOURS}` })),
      cursor,
    );
    const chart = { title, sums, format, cursor };
    this.charts.push(chart);
    this.listen(drawing, onZoom);
    return h(
      "figure",
      { class: "chart" },
      h("figcaption", {}, title, h("span", {}, `mean ${format(mean)}, most ${format(most)}`)),
      drawing,
      this.axis(),
    );
  }

  listen(drawing, onZoom) {
    const bucket = (event) => {
      const box = drawing.getBoundingClientRect();
      const at = Math.floor(((event.clientX - box.left) / box.width) * this.buckets);
      return Math.min(this.buckets - 1, Math.max(0, at));
    };
    let from = null;
    drawing.addEventListener("pointerdown", (event) => (from = bucket(event)));
    drawing.addEventListener("pointermove", (event) => this.say(bucket(event)));
    drawing.addEventListener("pointerleave", () => this.say((from = null)));
    drawing.addEventListener("pointerup", (event) => {
      const to = bucket(event);
      if (from !== null && to !== from) {
        onZoom(Math.min(from, to) * this.width, (Math.max(from, to) + 1) * this.width);
      }
      from = null;
    });
    drawing.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      this.say(Math.min(this.buckets - 1, Math.max(0, (this.at ?? -1) + step)));
    });
    drawing.addEventListener("blur", () => this.say(null));
  }

  say(at) {
    this.at = at;
    for (const { cursor } of this.charts) {
      cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
      cursor.setAttribute("x1", (at ?? 0) + 0.5);
      cursor.setAttribute("x2", (at ?? 0) + 0.5);
    }
    this.readout.textContent =
      at === null
        ? "Point at a chart to read a moment; drag over it to look at that time among the images."
        : `${moment(at * this.width)}: ` +
          this.charts.map((c) => `${c.title.toLowerCase()} ${c.format(c.sums[at])}`).join(", ");
  }

  axis() {
    const end = this.buckets * this.width;
    return h(
      "div",
      { class: "axis", "aria-hidden": "true" },
      ticks(0, end * 0.97, 6).map((at) => {
        const label = h("span", {}, moment(at));
        label.style.left = `${(at / end) * 100}%`;
        return label;
      }),
    );
  }
}

function legendOf(host, i) {
  return h("span", { class: "key" }, h("i", { class: `c${i % COLOURS}` }), place(host));
}

/** Areas that stand on each other, as paths of steps in a box of 100 in height. */
function stacked(series, most) {
  const floor = (series[0] || []).map(() => 0);
  return series.map((values) => {
    const y = (value) => (most > 0 ? 100 - (value / most) * 96 : 100).toFixed(1);
    const lower = floor.map((value, i) => `L${i + 1} ${y(value)}L${i} ${y(value)}`);
    values.forEach((value, i) => (floor[i] += value));
    const upper = floor.map((value, i) => `L${i} ${y(value)}L${i + 1} ${y(value)}`);
    return `M0 100${upper.join("")}${lower.reverse().join("")}Z`;
  });
}

/** A small drawing of one series and of the part of it that was throttled, with a line at its quota. */
function spark(values, throttled, quota, label) {
  const length = Math.max(1, values.length);
  const most = Math.max(...values, 0);
  // A quota that is far away would press everything else flat.
  const top = quota > 0 && quota < most * 4 ? Math.max(most, quota) : most;
  const y = (value) => (top > 0 ? 24 - (value / top) * 22 : 24).toFixed(1);
  const area = (figures) =>
    `M0 24${figures.map((value, i) => `L${i} ${y(value)}L${i + 1} ${y(value)}`).join("")}L${figures.length} 24Z`;
  return s(
    "svg",
    {
      class: "spark",
      viewBox: `0 0 ${length} 24`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
    },
    s("path", { class: "c0", d: area(values) }),
    throttled.length > 0 && s("path", { class: "b-fail", d: area(throttled) }),
    top === quota && s("line", { class: "quota", x1: 0, x2: length, y1: y(quota), y2: y(quota) }),
  );
}
