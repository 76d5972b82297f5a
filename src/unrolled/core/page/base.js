"use strict";
// What all pages share. Text nodes only: nothing of a text or a run is ever parsed as HTML.

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, shown]) => element("option", { value }, shown)));
  select.value = chosen;
}

/** Three figures, and no more decimals than can matter. */
function number(x) {
  const size = Math.abs(x);
  return size >= 100 ? x.toFixed(0) : size < 0.01 ? (Math.round(x * 1e4) / 1e4).toString() : x.toPrecision(3);
}

/** A token's name with the spaces at its ends made visible. */
function visible(name) {
  return name.replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));
}
