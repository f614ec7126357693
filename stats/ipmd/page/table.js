// The table of all virtual servers. Of thousands only the rows in sight are there.

import { memory, percent, short } from "./figures.js";
import { spark } from "./chart.js";

const columns = [
  { key: "id", title: "ID", text: (s) => s.id, order: (a, b) => b.id - a.id, figure: true },
  { key: "name", title: "Name", order: (a, b) => b.name.localeCompare(a.name, "en", { numeric: true }) },
  { key: "rx", title: "In B/s", text: (s) => short(s.rx), figure: true },
  { key: "tx", title: "Out B/s", text: (s) => short(s.tx), figure: true },
  { key: "rxPackets", title: "In pkt/s", text: (s) => short(s.rxPackets), figure: true },
  { key: "txPackets", title: "Out pkt/s", text: (s) => short(s.txPackets), figure: true },
  { key: "lost", title: "Lost/s", text: (s) => short(s.lost), figure: true },
  { key: "cpu", title: "CPU", text: (s) => percent(s.cpu), figure: true },
  { key: "memory", title: "Memory", text: (s) => memory(s.memory), figure: true },
  { key: "rate", title: "Last minute", order: (a, b) => known(a.both) - known(b.both) },
];

const known = (v) => (Number.isNaN(v) ? -1 : v);
const held = 2000; // ms that rows stay where they are once the pointer was moved over them

export class Table {
  sort = columns.at(-1);
  up = false;
  order = []; // of IDs
  rows = new Map(); // those in sight, by ID
  touched = -Infinity;

  constructor(table, readings) {
    this.readings = readings;
    this.head = table.tHead.rows[0];
    this.body = table.tBodies[0];
    this.above = this.space();
    this.below = this.space();
    for (const c of columns) this.head.append(this.heading(c));
    addEventListener("scroll", () => this.draw(), { passive: true });
    addEventListener("resize", () => this.draw());
    this.body.addEventListener("pointermove", () => (this.touched = performance.now()));
    this.body.addEventListener("click", (e) => e.target.closest("a") || (location.hash = e.target.closest("tr").dataset.id ?? ""));
    this.body.addEventListener("keydown", (e) => this.step(e));
  }

  space() {
    const row = this.body.insertRow();
    row.className = "space";
    row.ariaHidden = "true";
    row.insertCell().colSpan = columns.length;
    return row;
  }

  heading(column) {
    const th = document.createElement("th");
    th.scope = "col";
    th.className = `col-${column.key} ${column.figure ? "figure" : ""}`;
    const button = th.appendChild(document.createElement("button"));
    button.textContent = column.title;
    button.addEventListener("click", () => this.sortBy(column));
    column.th = th;
    return th;
  }

  // sortBy sorts by a column: what is most, or first, at the top; the other way round
  // the second time.
  sortBy(column) {
    this.up = this.sort === column && !this.up;
    this.sort = column;
    this.touched = -Infinity;
    this.arrange(true);
    this.draw();
  }

  // filter shows those with a text in their name or number.
  filter(text) {
    this.wanted = text.trim().toLowerCase();
    this.arrange(true);
    this.draw();
  }

  // arrange sorts. Rows do not move away from under somebody's hand.
  arrange(now) {
    const all = [...this.readings.servers.values()].filter((s) => !this.wanted || s.name.toLowerCase().includes(this.wanted) || String(s.id).includes(this.wanted));
    const first = this.up !== (this.sort.key === "id" || this.sort.key === "name");
    for (const c of columns) c.th.ariaSort = c === this.sort ? (first ? "ascending" : "descending") : null;
    if (!now && (performance.now() - this.touched < held || this.body.contains(document.activeElement))) {
      const there = new Map(all.map((s) => [s.id, s]));
      const before = new Set(this.order);
      this.order = [...this.order.filter((id) => there.has(id)), ...all.filter((s) => !before.has(s.id)).map((s) => s.id)];
      return;
    }
    const by = this.sort.order ?? ((a, b) => known(a[this.sort.key]) - known(b[this.sort.key]));
    const sign = this.up ? 1 : -1;
    this.order = all.sort((a, b) => sign * by(a, b) || a.id - b.id).map((s) => s.id);
  }

  // draw makes the rows in sight, and those a little above and below.
  draw() {
    if (!this.body.offsetParent) return; // one virtual server is shown instead
    const height = this.rowHeight || 32;
    const top = this.above.getBoundingClientRect().top;
    const begin = Math.max(0, Math.min(this.order.length, Math.floor(-top / height) - 5));
    const end = Math.min(this.order.length, Math.ceil((innerHeight - top) / height) + 5);
    const ids = this.order.slice(begin, end);
    this.above.firstChild.style.height = begin * height + "px";
    this.below.firstChild.style.height = (this.order.length - begin - ids.length) * height + "px";
    const wanted = new Set(ids);
    for (const [id, row] of this.rows) {
      if (!wanted.has(id)) {
        row.remove();
        this.rows.delete(id);
      }
    }
    let place = this.above.nextSibling;
    ids.forEach((id, i) => {
      const row = this.rows.get(id) ?? this.make(id);
      if (row === place) place = place.nextSibling;
      else this.body.insertBefore(row, place);
      row.ariaRowIndex = begin + i + 2;
      this.fill(row, this.readings.servers.get(id));
    });
    this.body.parentNode.ariaRowCount = this.order.length + 1;
    this.rowHeight = this.rows.get(ids[0])?.getBoundingClientRect().height || this.rowHeight;
  }

  make(id) {
    const row = document.createElement("tr");
    row.dataset.id = id;
    for (const c of columns) {
      const cell = row.insertCell();
      cell.className = `col-${c.key} ${c.key === "name" ? "name" : ""} ${c.figure ? "figure" : ""}`;
      if (c.key === "name") cell.appendChild(document.createElement("a")).href = "#" + id;
      if (c.key === "rate") {
        row.spark = cell.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
        row.spark.setAttribute("class", "spark");
        row.spark.setAttribute("viewBox", "0 0 144 24");
        row.spark.setAttribute("preserveAspectRatio", "none");
        row.spark.ariaHidden = "true";
      }
    }
    this.rows.set(id, row);
    return row;
  }

  fill(row, server) {
    columns.forEach((c, i) => {
      if (c.key === "name") put(row.cells[i].firstChild, server.name);
      else if (c.text) put(row.cells[i], String(c.text(server)));
    });
    if (row.drawn !== server.past.length) spark(row.spark, server.past, "both", 60, 144, 24);
    row.drawn = server.past.length;
  }

  // step moves among the rows' links by arrow keys.
  step(e) {
    const by = { ArrowDown: "nextSibling", ArrowUp: "previousSibling" }[e.key];
    const link = by && e.target.closest("tr")?.[by]?.querySelector?.("a");
    if (!link) return;
    e.preventDefault();
    link.focus();
    link.scrollIntoView({ block: "nearest" });
  }
}

// put writes text where it differs: to write is what costs.
export function put(el, text) {
  if (el.textContent !== text) el.textContent = text;
}
