// Which time is in sight beside the rows of the waterfall, and what is drawn of it.

class TimeView {
  constructor(report, model) {
    this.report = report;
    this.model = model;
    this.end = model.end;
    this.view = [0, this.end];
    this.resize(0);
  }

  /** The column of time is so many pixels wide. */
  resize(wide) {
    this.wide = Math.max(80, wide);
    this.moments = ticks(this.view[0], this.view[1], Math.max(2, this.wide / 90));
  }

  labels() {
    return this.moments.map((at) => {
      const label = h("span", {}, moment(at));
      label.style.left = `${(this.x(at) / this.wide) * 100}%`;
      return label;
    });
  }

  /** Look at just the time of some rows. */
  fit(rows) {
    const spans = rows.map((row) => this.model.span(row)).filter(Boolean);
    if (!spans.length) return;
    const begin = Math.min(...spans.map((span) => span[0]));
    const end = Math.max(...spans.map((span) => span[1]));
    const margin = Math.max(0.005, (end - begin) * 0.02);
    this.view = [Math.max(0, begin - margin), Math.min(this.end, end + margin)];
  }

  look(begin, end) {
    const width = Math.min(this.end, Math.max(0.01, end - begin));
    const from = Math.min(Math.max(0, begin), this.end - width);
    this.view = [from, from + width];
  }

  /** Shows less or more time; what is at this share of the width stays in its place. */
  zoom(factor, share = 0.5) {
    const [begin, end] = this.view;
    const at = begin + (end - begin) * share;
    this.look(at - (at - begin) * factor, at + (end - at) * factor);
  }

  /** At which share of the width a row is. */
  share(row) {
    const span = row && this.model.span(row);
    if (!span) return 0.5;
    const middle = this.x((span[0] + span[1]) / 2) / this.wide;
    return Math.min(1, Math.max(0, middle));
  }

  pan(share) {
    const [begin, end] = this.view;
    const by = (end - begin) * share;
    this.look(begin + by, end + by);
  }

  x(at) {
    return ((at - this.view[0]) / (this.view[1] - this.view[0])) * this.wide;
  }

  bar(kind, begin, end) {
    if (end < this.view[0] || begin > this.view[1]) return null;
    const from = Math.max(-4, this.x(begin));
    const to = Math.min(this.wide + 4, this.x(end));
    const [y, height] = { wait: [9, 8], fail: [4, 18], part: [7, 12] }[kind] || [6, 14];
    return s("rect", {
      class: `b-${kind}`,
      x: from.toFixed(1),
      y,
      width: Math.max(1.5, to - from).toFixed(1),
      height,
      rx: 1.5,
    });
  }

  bars(row) {
    const { images, blobs } = this.report;
    const span = this.model.span(row);
    const drawn = this.moments.map((at) =>
      s("line", {
        class: "rule",
        x1: this.x(at).toFixed(1),
        x2: this.x(at).toFixed(1),
        y1: 0,
        y2: ROW,
      }),
    );
    if (span) {
      if (row.kind === "image") {
        drawn.push(this.bar("wait", ...span));
        for (const [begin, end] of this.model.uploads(row.image, span))
          drawn.push(this.bar("send", begin, end));
        for (const { ended, seconds } of images.manifests[row.image] || [])
          drawn.push(this.bar("commit", ended - seconds, ended));
        if (images.status[row.image] === "failed") drawn.push(this.bar("fail", span[1], span[1]));
      } else if (row.kind === "blob") {
        drawn.push(this.bar("wait", span[0] - (blobs.waited[row.blob] || 0), span[1]));
        const stretches = blobs.stretches[row.blob] || [];
        for (const [begin, end] of stretches) drawn.push(this.bar("send", begin, end));
        if (!stretches.length) drawn.push(this.bar("send", ...span));
        if (blobs.status[row.blob] === "failed") drawn.push(this.bar("fail", span[1], span[1]));
      } else {
        drawn.push(this.bar(row.kind === "stretch" ? "part" : "commit", ...span));
      }
    }
    return s(
      "svg",
      {
        width: this.wide,
        height: ROW,
        viewBox: `0 0 ${this.wide} ${ROW}`,
        preserveAspectRatio: "none",
        "aria-hidden": "true",
      },
      drawn,
    );
  }
}
