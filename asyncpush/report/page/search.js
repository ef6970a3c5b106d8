// Which images a search means: words that all must be found, and words that say where to look.

const FIELDS = ["status", "registry", "repository", "tag", "digest", "error", "name"];

class Search {
  constructor(report) {
    this.report = report;
    this.texts = null;
  }

  /** The places of the images that a search means, in the report's order. */
  find(query) {
    const words = parse(query);
    const tests = words.map((word) => this.test(word));
    const found = [];
    for (let i = 0; i < this.report.images.name.length; i += 1) {
      if (tests.every((test) => test(i))) found.push(i);
    }
    return found;
  }

  test({ field, text }) {
    const { images } = this.report;
    switch (field) {
      case "status":
        return (i) => images.status[i].startsWith(text);
      case "registry":
        return (i) => images.reference[i].split("/", 1)[0].toLowerCase().includes(text);
      case "repository":
        return (i) => repositoryOf(images.reference[i]).toLowerCase().includes(text);
      case "tag":
        return (i) => images.tags[i].some((tag) => tag.tag.toLowerCase().includes(text));
      case "name":
        return (i) => images.name[i].toLowerCase().includes(text);
      case "error": {
        const has = (error) =>
          `${error.kind} ${error.message} ${error.advice}`.toLowerCase().includes(text);
        return (i) => images.error[i] !== null && has(images.error[i]);
      }
      case "digest":
        return this.digest(text);
      default: {
        // Whatever may be part of a digest is looked for among those of blobs, too.
        const digest = /^(sha\d+:)?[0-9a-f]{6,}$/.test(text) ? this.digest(text) : () => false;
        return (i) => this.text(i).includes(text) || digest(i);
      }
    }
  }

  digest(text) {
    const { images, blobs } = this.report;
    const named = new Set();
    blobs.digest.forEach((digest, place) => digest.includes(text) && named.add(place));
    const committed = (i) =>
      (images.manifests[i] || []).some((commit) => commit.digest.includes(text));
    return (i) =>
      images.digest[i].includes(text) ||
      (images.blobs[i] || []).some((place) => named.has(place)) ||
      committed(i);
  }

  text(i) {
    this.texts = this.texts || [];
    if (this.texts[i] === undefined) {
      const { images } = this.report;
      const tags = images.tags[i].map((tag) => tag.tag).join(" ");
      const error = images.error[i] ? images.error[i].kind : "";
      this.texts[i] = [
        images.name[i],
        images.reference[i],
        images.digest[i],
        images.status[i],
        tags,
        error,
      ]
        .join(" ")
        .toLowerCase();
    }
    return this.texts[i];
  }
}

function parse(query) {
  return query
    .toLowerCase()
    .split(/\s+/)
    .filter(Boolean)
    .map((word) => {
      const colon = word.indexOf(":");
      const field = FIELDS.find((name) => colon > 0 && name === word.slice(0, colon));
      return field ? { field, text: word.slice(colon + 1) } : { field: null, text: word };
    });
}

/** A reference without its tag or digest. */
function repositoryOf(reference) {
  const at = reference.indexOf("@");
  const bare = at < 0 ? reference : reference.slice(0, at);
  const colon = bare.lastIndexOf(":");
  return colon > bare.lastIndexOf("/") ? bare.slice(0, colon) : bare;
}
