// Small charts in SVG: a series' last seconds as a line.

import { kept, interval } from "./readings.js";

const ns = "http://www.w3.org/2000/svg";
export const minutes5 = (kept * interval) / 1000;

function part(svg, kind, name) {
  let el = svg.querySelector(`${kind}.${name}`);
  if (!el) {
    el = document.createElementNS(ns, kind);
    el.setAttribute("class", name);
    svg.append(el);
  }
  return el;
}

// path draws a series; where nothing is known, or for long nothing was read, is a gap.
function path(past, name, box, now, seconds, top, filled) {
  const x = (t) => box.width * (1 - (now - t) / (seconds * 1000));
  const y = (v) => box.height - (box.height * v) / top;
  let d = "", first = NaN, last = NaN;
  const close = () => (filled && !Number.isNaN(first) ? `V${box.height}H${first.toFixed(1)}Z` : "");
  past.each(name, now - seconds * 1000, (t, v) => {
    const gap = Number.isNaN(v) || t - last > 5 * interval || Number.isNaN(last);
    if (gap) {
      d += close();
      first = last = NaN;
      if (Number.isNaN(v)) return;
      first = x(t);
    }
    d += `${gap ? "M" : "L"}${x(t).toFixed(1)} ${y(v).toFixed(1)}`;
    last = t;
  });
  return d + close();
}

export function most(past, names, since) {
  let top = 0;
  for (const name of names) past.each(name, since, (_, v) => (top = Math.max(top, v || 0)));
  return top;
}

// spark draws what a row has room for.
export function spark(svg, past, name, seconds, width, height) {
  const now = past.time[(past.length - 1) % kept];
  const top = most(past, [name], now - seconds * 1000) || 1;
  part(svg, "path", "both").setAttribute("d", path(past, name, { width, height }, now, seconds, top * 1.05, true));
}

// chart draws series with a scale, from 0 to a round figure that is not the least noise.
export function chart(svg, past, names, label) {
  const { clientWidth: width, clientHeight: height } = svg;
  if (!width) return;
  const now = past.time[(past.length - 1) % kept];
  const top = roundUp(Math.max(label.least, most(past, Object.keys(names), now - minutes5 * 1000)), label.step ?? 10);
  const box = { width, height: height - 16 };
  part(svg, "path", "grid").setAttribute("d", `M0 .5H${width}M0 ${box.height / 2}H${width}M0 ${box.height}H${width}`);
  for (const [series, name] of Object.entries(names)) part(svg, "path", name).setAttribute("d", path(past, series, box, now, minutes5, top, false));
  text(svg, "top", 2, 12, label.of(top));
  text(svg, "half", 2, box.height / 2 + 12, label.of(top / 2));
  text(svg, "begin", 0, height - 2, "5 min ago");
  text(svg, "end", width, height - 2, "now").setAttribute("text-anchor", "end");
}

function text(svg, name, x, y, words) {
  const el = part(svg, "text", name);
  el.setAttribute("x", x);
  el.setAttribute("y", y);
  el.textContent = words;
  return el;
}

// roundUp is the next of 1, 2, 5 times a power.
function roundUp(v, power) {
  if (power === 2) return 2 ** Math.ceil(Math.log2(v));
  const unit = 10 ** Math.floor(Math.log10(v));
  return [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= v * 0.9999);
}
