// Tokens of a text as coloured elements, and what is told of one.

/** Where the lines of the page begin and end: at line ends, and in long lines after a space. */
function cutRows(text, longest = 240, start = 0) {
  const rows = [];
  for (let from = start; from < text.length || !rows.length;) {
    const line = text.indexOf("\n", from);
    let to = line < 0 ? text.length : line + 1;
    if (to - from > longest) {
      const space = text.lastIndexOf(" ", from + longest - 1);
      to = space > from ? space + 1 : from + longest;
      // not between the two halves of a character above U+FFFF
      if (text.charCodeAt(to) >> 10 === 0x37) to++;
    }
    rows.push([from, to]);
    from = to;
  }
  return rows;
}

/**
 * The element of a token, and the spaces after it, which belong to it but take no colour. A line end is shown by a sign;
 * a token may have no text of its own: an end symbol, or a byte in the middle of a character.
 */
function tokenParts(text, attributes) {
  const shown = text.replaceAll("\n", "⏎"), body = shown.trimEnd() || shown;
  return [element("span", { class: /^⏎*$/.test(body) ? "t mark" : "t", ...attributes }, body || "▫"), shown.slice(body.length)];
}

/** v: how strongly and in which colour a token is shown, from -1 (cool) to 1 (warm). */
function shade(span, v) {
  span.classList.toggle("warm", v > 0);
  span.classList.toggle("cool", v < 0);
  span.style.setProperty("--v", Math.min(1, Math.abs(v)).toFixed(3));
}

function showLegend(box, low, high, kind) {
  box.setAttribute("aria-label", `colours from ${low} to ${high}`);
  box.replaceChildren(element("span", {}, low), element("i", { class: kind }), element("span", {}, high));
}

/** A table of likely tokens: of each its name, whether it is the true one, and its probability p. make: shows a name. */
function likeliest(tokens, make = (one) => element("code", {}, visible(one.name))) {
  const body = element("tbody");
  for (const one of tokens) {
    const bar = element("i");
    bar.style.width = `${(100 * one.p).toFixed(1)}%`;
    body.append(element("tr", one.true ? { class: "true" } : {}, element("td", {}, make(one)),
      element("td", { class: "n" }, one.p.toPrecision(2)), element("td", { class: "bar" }, bar)));
  }
  return element("table", {}, element("caption", {}, "likeliest in its place"), body);
}
