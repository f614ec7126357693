// One virtual server: its charts, interfaces, services and protocols.

import { exact, memory, percent, perSecond, short } from "./figures.js";
import { chart } from "./chart.js";
import { put } from "./table.js";
import { lost } from "./rates.js";

const $ = (id) => document.getElementById(id);

// rewrite has a table's body hold these rows of texts, touching what differs alone.
function rewrite(body, rows, left) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((texts, r) => {
    const row = body.rows[r] ?? body.insertRow();
    row.className = texts.total ? "total" : "";
    texts.forEach((text, c) => {
      const cell = row.cells[c] ?? row.insertCell();
      if (c >= left) cell.className = "figure";
      put(cell, String(text));
    });
  });
}

// table finds or makes a table below a heading.
function table(name, headings) {
  let el = $("table-" + name);
  if (!el) {
    const title = document.createElement("h3");
    title.textContent = name;
    el = document.createElement("table");
    el.id = "table-" + name;
    const row = el.createTHead().insertRow();
    headings.forEach((h, i) => {
      const th = row.appendChild(document.createElement("th"));
      th.scope = "col";
      th.textContent = h;
      if (i > 0) th.className = "figure";
    });
    el.createTBody();
    $("tables").append(title, el);
  }
  return el;
}

function show(name, headings, rows) {
  const el = table(name, headings);
  el.hidden = el.previousSibling.hidden = rows.length === 0;
  rewrite(el.tBodies[0], rows, 1);
}

const total = (row) => Object.assign(row, { total: true });

function interfaces(span) {
  const row = (name, c, r) => [name, short(r?.rxBytes), short(r?.txBytes), short(r?.rxPackets), short(r?.txPackets), short(r && lost(r)),
    exact(c.rxBytes), exact(c.txBytes), exact(c.rxPackets), exact(c.txPackets), exact(lost(c))];
  const rows = span.is.interfaces.map((i) => row(i.name, i, span.interface(i.name)));
  return [...rows, total(row("total", span.is.total, span.total()))];
}

function services(span) {
  const row = (name, u, r) => [name, percent(r.cpu), memory(u.memory), memory(u.memoryPeak), exact(u.tasks), short(r.read), short(r.written), exact(u.oomKills)];
  const { use, services = [] } = span.is;
  if (!use) return [];
  const sum = { cpu: span.cpu(), read: span.of(span.was?.use?.readBytes, use.readBytes), written: span.of(span.was?.use?.writeBytes, use.writeBytes) };
  return [...services.map((s) => row(s.name, s, span.service(s.name))), total(row("total", use, sum))];
}

// totals are what the ledger has, over all lives of the virtual server.
function totals(ledger) {
  const row = (name, c) => [name, exact(c.rxBytes), exact(c.txBytes), exact(c.rxPackets), exact(c.txPackets), exact(lost(c))];
  const removed = Object.values(ledger.removed ?? {}).some((v) => v > 0) ? [row("removed", ledger.removed)] : [];
  return [...ledger.interfaces.map((i) => row(i.name, i)), ...removed, total(row("total", ledger.total))];
}

function showLedger(ledger) {
  if (!ledger) return;
  show("Totals", ["Interface", "In bytes", "Out bytes", "In packets", "Out packets", "Lost"], totals(ledger));
  const gaps = ledger.gaps ? `; ${ledger.gaps} times in a gap of ${Math.round(ledger.lost)} s in all, what was counted is missing` : "";
  put($("table-Totals").createCaption(), `Over all of its lives since ${new Date(ledger.since).toLocaleString()}${gaps}.`);
}

function counters(span, filter, zeros) {
  const rows = [];
  const { mib, sockets = {}, conntrack = {}, neighbours = {} } = span.is;
  for (const [of, groups] of [["", mib], ["sockstat ", sockets], ["", conntrack], ["neighbours ", neighbours]]) {
    for (const [group, names] of Object.entries(groups)) {
      for (const [name, value] of Object.entries(names)) {
        if ((value !== 0 || zeros) && `${of}${group}.${name}`.toLowerCase().includes(filter)) {
          rows.push([of + group, name, exact(value), short(span.counter(group, name))]);
        }
      }
    }
  }
  return rows;
}

export function draw(readings) {
  const server = readings.servers.get(readings.one);
  put($("one-name"), server ? `${server.name} (vs${server.id})` : `vs${readings.one}`);
  $("one-gone").hidden = Boolean(server);
  put($("one-gone"), readings.last ? "It is not enabled, or there is none." : "Nothing was read yet.");
  if (!server) return;
  put($("one-rx"), perSecond(server.rx));
  put($("one-tx"), perSecond(server.tx));
  put($("one-cpu"), percent(server.cpu));
  put($("one-memory"), memory(server.memory));
  $("figure-cpu").hidden = !server.sample.use?.cpu;
  $("figure-memory").hidden = !server.sample.use?.memory;
  chart($("chart-traffic"), server.past, { rx: "in", tx: "out" }, { of: perSecond, least: 1000 });
  chart($("chart-cpu"), server.past, { cpu: "cpu" }, { of: percent, least: 0.01 });
  chart($("chart-memory"), server.past, { memory: "memory" }, { of: memory, least: 1 << 20, step: 2 });
  const span = readings.detail;
  if (!span) return;
  show("Interfaces", ["Interface", "In B/s", "Out B/s", "In pkt/s", "Out pkt/s", "Lost/s", "In bytes", "Out bytes", "In packets", "Out packets", "Lost"], interfaces(span));
  showLedger(span.is.ledger);
  show("Services", ["Service", "CPU", "Memory", "Peak", "Tasks", "Read B/s", "Written B/s", "Killed for memory"], services(span));
  rewrite($("counters").tBodies[0], counters(span, $("counter-filter").value.trim().toLowerCase(), $("zeros").checked), 2);
}

// clear takes away what another virtual server has left.
export function clear() {
  $("tables").replaceChildren();
  $("counters").tBodies[0].replaceChildren();
  for (const svg of $("one").querySelectorAll("svg")) svg.replaceChildren();
}
