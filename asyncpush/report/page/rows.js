// What the rows of the waterfall are and say: images, their blobs and manifests, the parts of blobs.

class Rows {
  constructor(report) {
    this.report = report;
    this.nicknames = nicknames(report.hosts);
    this.end = 0.001;
    for (const ended of [report.seconds, ...report.images.ended])
      this.end = Math.max(this.end, ended || 0);
  }

  /** The row of an image. */
  image(image) {
    return { kind: "image", image, key: `i${image}`, level: 1, opens: true };
  }

  /** The rows below an image, those below its blobs where they are open. */
  inside(image, open) {
    const { images, blobs } = this.report;
    const rows = [];
    const places = [...(images.blobs[image] || [])].sort(
      (a, b) => (blobs.started[a] ?? 0) - (blobs.started[b] ?? 0),
    );
    for (const blob of places) {
      const row = {
        kind: "blob",
        image,
        blob,
        key: `i${image}b${blob}`,
        level: 2,
        opens: Boolean(blobs.stretches[blob]),
      };
      rows.push(row);
      if (!open.has(row.key)) continue;
      let part = 1;
      for (const stretch of blobs.stretches[blob] || []) {
        rows.push({
          kind: "stretch",
          image,
          blob,
          stretch,
          part,
          key: `${row.key}p${part}`,
          level: 3,
        });
        part += stretch[3];
      }
    }
    for (const [n, commit] of (images.manifests[image] || []).entries()) {
      rows.push({ kind: "commit", image, commit, key: `i${image}m${n}`, level: 2 });
    }
    return rows;
  }

  texts(row) {
    const { images, blobs } = this.report;
    const { image, blob } = row;
    if (row.kind === "image") {
      const [where, name] = split(images.reference[image]);
      return {
        name,
        where: this.nicknames.get(where) ?? where,
        title: `${images.name[image]} → ${images.reference[image]}`,
        status: images.status[image],
        sent: images.bytes_sent[image] ? bytes(images.bytes_sent[image]) : "",
        seconds: images.started[image] === null ? "" : duration(images.seconds[image]),
      };
    }
    if (row.kind === "blob") {
      const away = blobs.started[blob] === null;
      return {
        name: `${short(blobs.digest[blob])} · ${bytes(blobs.size[blob])}${this.elsewhere(row) ? " · sent for another image" : ""}`,
        title: blobs.digest[blob],
        status: blobs.status[blob],
        sent: blobs.bytes_sent[blob] ? bytes(blobs.bytes_sent[blob]) : "",
        seconds: away || blobs.seconds[blob] === null ? "" : duration(blobs.seconds[blob]),
      };
    }
    if (row.kind === "stretch") {
      const [begin, end, size, parts] = row.stretch;
      const last = row.part + parts - 1;
      return {
        name: `${parts > 1 ? `parts ${row.part} to ${last}` : `part ${row.part}`} · ${bytes(size / (end - begin || 1))}/s`,
        sent: bytes(size),
        seconds: duration(end - begin),
      };
    }
    const { commit } = row;
    return {
      name: `manifest ${short(commit.digest)}${commit.tag ? ` as ${commit.tag}` : ""}`,
      title: commit.digest,
      status: commit.existed ? "existed" : "sent",
      seconds: duration(commit.seconds),
    };
  }

  /** Whether a blob of an image was brought up before that image had its turn. */
  elsewhere({ image, blob }) {
    const { images, blobs } = this.report;
    return blobs.started[blob] !== null && blobs.started[blob] < images.started[image] - 0.001;
  }

  spoken(row) {
    const span = this.span(row);
    return span ? `from ${moment(span[0])} to ${moment(span[1])}` : "not begun";
  }

  span({ kind, image, blob, stretch, commit }) {
    const { images, blobs } = this.report;
    if (kind === "image") {
      if (images.started[image] === null) return null;
      return [images.started[image], images.ended[image] ?? this.end];
    }
    if (kind === "blob") {
      if (blobs.started[blob] === null) return null;
      return [
        blobs.started[blob],
        blobs.seconds[blob] === null ? this.end : blobs.started[blob] + blobs.seconds[blob],
      ];
    }
    return kind === "stretch"
      ? [stretch[0], stretch[1]]
      : [commit.ended - commit.seconds, commit.ended];
  }

  /** When an image's blobs were on their way during its turn, as few spans that do not overlap. */
  uploads(image, [from, to]) {
    const spans = (this.report.images.blobs[image] || [])
      .map((blob) => this.span({ kind: "blob", blob }))
      .filter((span) => span && span[1] > from && span[0] < to)
      .map(([begin, end]) => [Math.max(begin, from), Math.min(end, to)])
      .sort((a, b) => a[0] - b[0]);
    const joined = [];
    for (const span of spans) {
      const last = joined[joined.length - 1];
      if (last && span[0] <= last[1] + this.end / 5000) last[1] = Math.max(last[1], span[1]);
      else joined.push(span);
    }
    return joined;
  }
}

/** All that the report says of a row. */
function detailsOf(report, { kind, image, blob, commit, stretch }) {
  const { images, blobs } = report;
  const pairs = [];
  const add = (name, value) =>
    value !== null && value !== undefined && value !== "" && pairs.push([name, value]);
  if (kind === "image") {
    add("Reference", images.reference[image]);
    add("Source", images.name[image]);
    add("Digest", images.digest[image]);
    add("Tags", images.tags[image].map((tag) => `${tag.tag} ${tag.status}`).join(", "));
    add(
      "Turn",
      images.started[image] === null
        ? "never came"
        : `${moment(images.started[image])}, for ${duration(images.seconds[image])}`,
    );
    add("Sent on its behalf", bytes(images.bytes_sent[image]));
    add("Blobs", (images.blobs[image] || []).length);
    const replicated = ((report.replication || {}).images || []).find(
      (one) => one.reference === images.reference[image],
    );
    if (replicated) add("Replicated", destinations(replicated) || wordOf(replicated.status));
  } else if (kind === "commit") {
    add("Manifest", commit.digest);
    add("Tag", commit.tag);
    add("Committed", `${moment(commit.ended)}, after ${duration(commit.seconds)}`);
    add("Was there", commit.existed ? "yes" : "no");
  } else {
    add("Digest", blobs.digest[blob]);
    add("Repository", blobs.repository[blob]);
    add("Size", `${bytes(blobs.size[blob])} (${count(blobs.size[blob])} bytes)`);
    add("Sent", `${bytes(blobs.bytes_sent[blob])} in ${plural(blobs.parts[blob], "part")}`);
    if (kind === "stretch")
      add(
        "These parts",
        `${plural(stretch[3], "part")}, ${moment(stretch[0])} to ${moment(stretch[1])}`,
      );
    add("Mounted from", blobs.mounted_from[blob]);
    add("Mounted at", blobs.mounted_at[blob] === null ? null : moment(blobs.mounted_at[blob]));
    add("Began", blobs.started[blob] === null ? null : moment(blobs.started[blob]));
    add("Took", blobs.seconds[blob] === null ? null : duration(blobs.seconds[blob]));
    add("Parts on their way", blobs.sending[blob] === null ? null : duration(blobs.sending[blob]));
    add("Waited for a layer's slot", blobs.waited[blob] ? duration(blobs.waited[blob]) : null);
    add("Waited for parts' slots", blobs.slots[blob] ? duration(blobs.slots[blob]) : null);
  }
  const error =
    kind === "image" ? images.error[image] : blob === undefined ? null : blobs.error[blob];
  const status =
    kind === "image" ? images.status[image] : kind === "blob" ? blobs.status[blob] : null;
  return [
    h(
      "h3",
      {},
      { image: "Image", blob: "Layer", stretch: "Parts", commit: "Manifest" }[kind],
      " ",
      status && badge(status),
    ),
    error && h("p", { class: "error" }, error.message),
    error && error.advice && h("p", { class: "advice" }, error.advice),
    h(
      "dl",
      {},
      pairs.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
    ),
    error &&
      h(
        "dl",
        {},
        Object.entries(error.where).map(([name, value]) => [
          h("dt", {}, name.replaceAll("_", " ")),
          h("dd", {}, value),
        ]),
      ),
  ].filter(Boolean);
}
