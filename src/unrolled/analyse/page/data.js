// What the page holds, decoded. Nothing here touches the document, so that it also runs without a browser.

const KINDS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };

/** Base64 of little-endian whole numbers to a typed array. */
function unpack(data, type) {
  const binary = atob(data);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return type === "uint8" ? bytes : new KINDS[type](bytes.buffer);
}

/** One model's reading of the text. */
class Reading {
  constructor(value, text) {
    this.value = value;
    this.text = text;
    for (const name of ["offsets", "ids", "bits", "top", "topBits"]) {
      this[name] = unpack(value[name].data, value[name].type);
    }
    this.count = this.ids.length;
    this.decoded = new Map();
    this.series = [];
    for (const group of value.groups) {
      for (const [name, series] of Object.entries(group.series)) {
        group.units.forEach((unit, place) => this.series.push({
          group, name, unit, place, key: `${group.layer}.${name}.${unit}`, internal: `${group.layer}.${name}`,
          width: group.width, low: series.low[place], high: series.high[place], variance: series.variance[place],
        }));
      }
    }
    // the scale of the colours ends where only one token in fifty lies beyond
    const sorted = this.bits.slice().sort();
    this.most = Math.max(1, sorted[Math.floor(0.98 * (sorted.length - 1))] / 1024);
  }

  loss(i) { return this.bits[i] / 1024; }

  name(i) { return this.value.vocabulary[this.ids[i]]; }

  /** Where in the text token i ends. */
  end(i) { return i + 1 < this.count ? this.offsets[i + 1] : this.text.length; }

  alternatives(i) {
    const k = this.value.alternatives, found = [];
    for (let j = i * k; j < (i + 1) * k; j++) {
      found.push({ name: this.value.vocabulary[this.top[j]], true: this.top[j] === this.ids[i], p: 2 ** (-this.topBits[j] / 16) });
    }
    return found;
  }

  /** The tokens that begin in [from, to): first and one past the last. Binary search, offsets never fall. */
  between(from, to) {
    const search = (place) => {
      let low = 0, high = this.count;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (this.offsets[middle] < place) low = middle + 1; else high = middle;
      }
      return low;
    };
    return [search(from), search(to)];
  }

  /** Steps of a series, decoded when first needed. */
  steps(series) {
    if (!this.decoded.has(series.key)) {
      this.decoded.set(series.key, unpack(series.group.series[series.name].data[series.place], "uint8"));
    }
    return this.decoded.get(series.key);
  }

  at(series, i) { return series.low + this.steps(series)[i] * (series.high - series.low) / 255; }

  /** All internals of one unit. */
  siblings(series) {
    return this.series.filter((one) => one.group === series.group && one.unit === series.unit);
  }

  /** Names of the internals, such as 0.c; the one that ranks the units of each layer first. */
  internals() {
    const names = [...new Set(this.series.map((one) => one.internal))];
    const main = new Set(this.value.groups.map((group) => `${group.layer}.${group.main}`));
    return [...names.filter((name) => main.has(name)), ...names.filter((name) => !main.has(name))];
  }

  /**
   * Series that a query means, by variance. Words of letters name the internal; of numbers the last is the unit, one
   * before it the layer: "17", "h 17", "0.h.17". Without a name, those of the given internal.
   */
  find(query, internal) {
    const words = query.toLowerCase().split(/[\s.,:]+/).filter(Boolean);
    const numbers = words.filter((word) => /^\d+$/.test(word)).map(Number);
    const names = words.filter((word) => !/^\d+$/.test(word));
    const fits = (one) => (names.length ? names.every((name) => one.name.toLowerCase().startsWith(name)) : one.internal === internal)
      && (numbers.length < 1 || one.unit === numbers[numbers.length - 1])
      && (numbers.length < 2 || one.group.layer === numbers[0]);
    return this.series.filter(fits).sort((a, b) => b.variance - a.variance || a.unit - b.unit);
  }
}
