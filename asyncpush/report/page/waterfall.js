// The waterfall: a list of rows, of which only those in sight exist, with their time beside them.

const ROW = 26;
const OVERSCAN = 6;
const PRINTED = 60;
// From so many images on, all of the time shows nothing of one of them.
const MANY = 100;
const COLUMNS = ["Image", "Status", "Sent", "Time", "When"];
const ORDERS = {
  "as they began": (r) => (i) => r.images.started[i] ?? Infinity,
  "as they ended": (r) => (i) => r.images.ended[i] ?? Infinity,
  "longest first": (r) => (i) => -r.images.seconds[i],
  "most bytes first": (r) => (i) => -r.images.bytes_sent[i],
};

class Waterfall {
  constructor(report) {
    this.report = report;
    this.model = new Rows(report);
    this.end = this.model.end;
    this.view = [0, this.end];
    this.follows = report.images.name.length > MANY;
    this.search = new Search(report);
    this.states = new Set();
    this.host = "";
    this.order = Object.keys(ORDERS)[0];
    this.open = new Set();
    this.active = 0;
    this.build();
    this.filter();
  }

  build() {
    const { report } = this;
    const refilter = () => this.filter();
    this.input = h("input", { type: "search", id: "search", placeholder: "app  status:failed  sha256:…", autocomplete: "off", spellcheck: "false", "aria-describedby": "found search-help", input: refilter });
    this.found = h("output", { id: "found", role: "status" });
    const counts = new Map();
    for (const status of report.images.status) counts.set(status, (counts.get(status) || 0) + 1);
    this.chips = [...counts].map(([status, number]) =>
      h("button", { type: "button", class: "chip", "aria-pressed": "false", "data-status": status, click: () => this.toggle(status) }, badge(status, `${wordOf(status)} ${count(number)}`)));
    this.hosts = select("Registry", ["", ...report.hosts], (value) => (value ? place(value) : "all registries"), (value) => {
      this.host = value;
      refilter();
    });
    this.orders = select("Order", Object.keys(ORDERS), (value) => value, (value) => {
      this.order = value;
      refilter();
    });
    this.follower = this.button("Follow", "Follow the rows in sight (f)", () => this.follow(!this.follows));
    this.axis = h("div", { class: "cell in-when", role: "columnheader", "aria-label": "When" });
    this.window = h("div", { class: "window", role: "presentation" });
    this.spacer = h("div", { class: "spacer", role: "presentation" }, this.window);
    this.body = h("div", { class: "body", role: "rowgroup" }, this.spacer);
    this.grid = h(
      "div",
      { class: "grid", role: "treegrid", tabindex: 0, "aria-label": "Images, their layers and parts", "aria-colcount": COLUMNS.length, keydown: (event) => this.key(event) },
      h("div", { role: "rowgroup", class: "heads" }, h("div", { class: "row head", role: "row", "aria-rowindex": 1 }, COLUMNS.slice(0, 4).map((name) => h("div", { class: `cell in-${name.toLowerCase()}`, role: "columnheader" }, name)), this.axis)),
      this.body,
    );
    this.details = h("aside", { class: "details", "aria-label": "Details of the row" });
    section(
      "images",
      "Images",
      h("div", { class: "tools", role: "search" },
        h("label", { class: "field wide" }, "Search", this.input),
        this.hosts, this.orders,
        h("div", { class: "zoom", role: "group", "aria-label": "Time in sight" },
          this.button("−", "See more time (−)", () => this.zoom(2)),
          this.button("+", "See less time (+)", () => this.zoom(0.5)),
          this.button("‹", "Earlier ([)", () => this.pan(-0.4)),
          this.button("›", "Later (])", () => this.pan(0.4)),
          this.button("All", "See all of the time (0)", () => this.look(0, this.end)),
          this.follower)),
      h("div", { class: "chips", role: "group", "aria-label": "Statuses" }, this.chips, this.found),
      h("p", { class: "help", id: "search-help" },
        "Words must all be found in names, references, digests or errors; ",
        FIELDS.map((name) => [h("code", {}, `${name}:`), " "]),
        "say where. Keys: / search, arrows move and open, + − zoom, [ ] earlier and later, 0 all, f follow."),
      h("div", { class: "legend" }, [["wait", "waiting"], ["send", "uploading"], ["commit", "committing"], ["fail", "failed"]].map(([kind, word]) => h("span", { class: "key" }, h("i", { class: `b-${kind}` }), word))),
      h("div", { class: "split" }, this.grid, this.details),
    );
    this.body.addEventListener("scroll", () => this.draw());
    this.body.addEventListener("click", (event) => this.click(event));
    this.body.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    new ResizeObserver(() => this.draw()).observe(this.body);
    window.addEventListener("beforeprint", () => this.print(true));
    window.addEventListener("afterprint", () => this.print(false));
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
        event.preventDefault();
        this.input.focus();
      }
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.show("");
      else if (event.key === "ArrowDown" || event.key === "Enter") this.grid.focus();
      else return;
      event.preventDefault();
    });
  }

  button(text, label, click) {
    return h("button", { type: "button", "aria-label": label, title: label, click }, text);
  }

  /** Search for something that another part of the page names. */
  show(query) {
    this.input.value = query;
    this.states.clear();
    this.filter();
    if (query) document.getElementById("images").scrollIntoView();
  }

  toggle(status) {
    if (!this.states.delete(status)) this.states.add(status);
    this.filter();
  }

  filter() {
    const { images } = this.report;
    for (const chip of this.chips) {
      chip.setAttribute("aria-pressed", String(this.states.has(chip.dataset.status)));
    }
    const key = ORDERS[this.order](this.report);
    this.images = this.search
      .find(this.input.value)
      .filter((i) => !this.states.size || this.states.has(images.status[i]))
      .filter((i) => !this.host || images.reference[i].startsWith(`${this.host}/`))
      .sort((a, b) => key(a) - key(b) || a - b);
    const all = images.name.length;
    this.found.textContent =
      this.images.length === all ? plural(all, "image") : `${count(this.images.length)} of ${plural(all, "image")}`;
    this.active = 0;
    this.body.scrollTop = 0;
    this.lay();
  }

  /** Lays out all rows that are open, without drawing them. */
  lay() {
    this.rows = [];
    for (const image of this.images) {
      const row = this.model.image(image);
      this.rows.push(row);
      if (this.open.has(row.key)) this.rows.push(...this.model.inside(image, this.open));
    }
    this.spacer.style.height = `${this.rows.length * ROW}px`;
    this.grid.setAttribute("aria-rowcount", this.rows.length + 1);
    this.select(Math.min(this.active, Math.max(0, this.rows.length - 1)));
  }

  draw() {
    const printing = this.printing;
    const height = this.body.clientHeight || 400;
    const first = printing ? 0 : Math.max(0, Math.floor(this.body.scrollTop / ROW) - OVERSCAN);
    const last = printing
      ? Math.min(this.rows.length, PRINTED)
      : Math.min(this.rows.length, first + Math.ceil(height / ROW) + 2 * OVERSCAN);
    this.wide = Math.max(80, this.axis.clientWidth);
    if (this.follows) this.fit(first, last);
    this.follower.setAttribute("aria-pressed", String(this.follows));
    this.moments = ticks(this.view[0], this.view[1], Math.max(2, this.wide / 90));
    this.drawAxis();
    this.window.style.transform = `translateY(${first * ROW}px)`;
    const rows = [];
    for (let n = first; n < last; n += 1) rows.push(this.drawRow(n));
    this.window.replaceChildren(...rows);
    if (!rows.length) this.window.append(h("p", { class: "note" }, "No image is like that."));
    if (printing && last < this.rows.length) {
      this.window.append(h("p", { class: "note" }, `and ${count(this.rows.length - last)} rows more in the page itself`));
    }
    this.grid.setAttribute("aria-activedescendant", rows.length ? `row-${this.active}` : "");
  }

  drawAxis() {
    this.axis.replaceChildren(
      ...this.moments.map((at) => {
        const label = h("span", {}, moment(at));
        label.style.left = `${(this.x(at) / this.wide) * 100}%`;
        return label;
      }),
    );
  }

  drawRow(n) {
    const row = this.rows[n];
    const { name, where, status, sent, seconds, title } = this.model.texts(row);
    const open = this.open.has(row.key);
    const twisty = h("span", { class: "twisty", "aria-hidden": "true" }, row.opens ? (open ? "▾" : "▸") : "");
    return h(
      "div",
      {
        class: `row level${row.level}${n === this.active ? " active" : ""}`,
        id: `row-${n}`,
        role: "row",
        "data-n": n,
        "aria-level": row.level,
        "aria-rowindex": n + 2,
        "aria-expanded": row.opens ? String(open) : null,
        "aria-selected": String(n === this.active),
      },
      h("div", { class: "cell in-image", role: "gridcell", title }, twisty, h("bdi", {}, name), where && h("span", { class: "where" }, where)),
      h("div", { class: "cell in-status", role: "gridcell" }, status && badge(status)),
      h("div", { class: "cell in-sent", role: "gridcell" }, sent),
      h("div", { class: "cell in-time", role: "gridcell" }, seconds),
      h("div", { class: "cell in-when", role: "gridcell", "aria-label": this.model.spoken(row) }, this.bars(row)),
    );
  }

  x(at) {
    return ((at - this.view[0]) / (this.view[1] - this.view[0])) * this.wide;
  }

  bar(kind, begin, end) {
    if (end < this.view[0] || begin > this.view[1]) return null;
    const from = Math.max(-4, this.x(begin));
    const to = Math.min(this.wide + 4, this.x(end));
    const [y, height] = { wait: [9, 8], fail: [4, 18], part: [7, 12] }[kind] || [6, 14];
    return s("rect", { class: `b-${kind}`, x: from.toFixed(1), y, width: Math.max(1.5, to - from).toFixed(1), height, rx: 1.5 });
  }

  bars(row) {
    const { images, blobs } = this.report;
    const span = this.model.span(row);
    const drawn = this.moments.map((at) => s("line", { class: "rule", x1: this.x(at).toFixed(1), x2: this.x(at).toFixed(1), y1: 0, y2: ROW }));
    if (span) {
      if (row.kind === "image") {
        drawn.push(this.bar("wait", ...span));
        for (const [begin, end] of this.model.uploads(row.image, span)) drawn.push(this.bar("send", begin, end));
        for (const { ended, seconds } of images.manifests[row.image] || []) drawn.push(this.bar("commit", ended - seconds, ended));
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
    return s("svg", { width: this.wide, height: ROW, viewBox: `0 0 ${this.wide} ${ROW}`, preserveAspectRatio: "none", "aria-hidden": "true" }, drawn);
  }

  follow(follows) {
    this.follows = follows;
    this.draw();
  }

  /** Look at just the time of some rows. */
  fit(first, last) {
    const spans = this.rows.slice(first, last).map((row) => this.model.span(row)).filter(Boolean);
    if (!spans.length) return;
    const begin = Math.min(...spans.map((span) => span[0]));
    const end = Math.max(...spans.map((span) => span[1]));
    const margin = Math.max(0.005, (end - begin) * 0.02);
    this.view = [Math.max(0, begin - margin), Math.min(this.end, end + margin)];
  }

  look(begin, end) {
    this.follows = false;
    const width = Math.min(this.end, Math.max(0.01, end - begin));
    const from = Math.min(Math.max(0, begin), this.end - width);
    this.view = [from, from + width];
    this.draw();
  }

  zoom(factor, around) {
    const [begin, end] = this.view;
    const centre = around ?? (begin + end) / 2;
    this.look(centre - (centre - begin) * factor, centre + (end - centre) * factor);
  }

  pan(share) {
    const [begin, end] = this.view;
    const by = (end - begin) * share;
    this.look(begin + by, end + by);
  }

  wheel(event) {
    const box = this.axis.getBoundingClientRect();
    if (event.clientX < box.left) return;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      const at = this.view[0] + ((event.clientX - box.left) / box.width) * (this.view[1] - this.view[0]);
      this.zoom(event.deltaY > 0 ? 1.25 : 0.8, at);
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      this.pan((event.deltaX || event.deltaY) / box.width);
    }
  }

  click(event) {
    const row = event.target.closest("[data-n]");
    if (!row) return;
    const n = Number(row.dataset.n);
    if (event.target.closest(".twisty") || n === this.active) this.turn(n);
    this.select(n);
  }

  turn(n, wanted) {
    const row = this.rows[n];
    if (!row || !row.opens || this.open.has(row.key) === wanted) return;
    if (!this.open.delete(row.key)) this.open.add(row.key);
    this.active = n;
    this.lay();
  }

  select(n) {
    this.active = n;
    const top = n * ROW;
    const { scrollTop, clientHeight } = this.body;
    if (top < scrollTop) this.body.scrollTop = top;
    else if (top + ROW > scrollTop + clientHeight) this.body.scrollTop = top + ROW - clientHeight;
    this.draw();
    this.details.replaceChildren(...(this.rows[n] ? detailsOf(this.report, this.rows[n]) : []));
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.body.clientHeight / ROW) - 1);
    const row = this.rows[this.active];
    const last = this.rows.length - 1;
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const acts = {
      ArrowRight: () => this.turn(this.active, true),
      ArrowLeft: () => (row && this.open.has(row.key) ? this.turn(this.active, false) : this.up()),
      Enter: () => this.turn(this.active),
      " ": () => this.turn(this.active),
      "+": () => this.zoom(0.5, this.middle(row)),
      "=": () => this.zoom(0.5, this.middle(row)),
      "-": () => this.zoom(2),
      "[": () => this.pan(-0.4),
      "]": () => this.pan(0.4),
      0: () => this.look(0, this.end),
      f: () => this.follow(!this.follows),
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) this.select(Math.min(last, Math.max(0, this.active + moves[event.key])));
    else if (event.key in acts) acts[event.key]();
    else return;
    event.preventDefault();
  }

  middle(row) {
    const span = row && this.model.span(row);
    return span ? (span[0] + span[1]) / 2 : undefined;
  }

  up() {
    const { level } = this.rows[this.active] || { level: 1 };
    let n = this.active;
    while (n > 0 && this.rows[n].level >= level) n -= 1;
    if (level > 1) this.select(n);
  }

  print(begins) {
    this.printing = begins;
    this.draw();
  }
}

function select(label, values, text, change) {
  return h("label", { class: "field" }, label,
    h("select", { change: (event) => change(event.target.value) }, values.map((value) => h("option", { value }, text(value)))));
}

