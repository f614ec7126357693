// Asks ipmd again and again, and keeps the last minutes of each virtual server.

import { Span, lost } from "./rates.js";

export const interval = 1000; // ms
export const kept = 300; // readings: 5 minutes

const patience = 5000; // ms, for one answer

// A Past is the last readings of some figures, and when each was.
export class Past {
  constructor(...names) {
    this.length = 0;
    this.time = new Float64Array(kept);
    this.series = Object.fromEntries(names.map((n) => [n, new Float32Array(kept)]));
  }

  add(time, figures) {
    const at = this.length++ % kept;
    this.time[at] = time;
    for (const [name, values] of Object.entries(this.series)) values[at] = figures[name];
  }

  // each calls f(time, value) of those since a time, the oldest first.
  each(name, since, f) {
    for (let i = Math.max(0, this.length - kept); i < this.length; i++) {
      if (this.time[i % kept] >= since) f(this.time[i % kept], this.series[name][i % kept]);
    }
  }
}

// A Server is one virtual server as it was read last.
class Server {
  past = new Past("rx", "tx", "both", "cpu", "memory");

  read(sample, now) {
    if (this.sample?.time === sample.time) return; // shared with another asker, and seen before
    this.span = new Span(this.sample, sample);
    this.sample = sample;
    this.id = sample.id;
    this.name = sample.name;
    const rate = this.span.total();
    this.rx = rate?.rxBytes ?? NaN;
    this.tx = rate?.txBytes ?? NaN;
    this.both = this.rx + this.tx;
    this.rxPackets = rate?.rxPackets ?? NaN;
    this.txPackets = rate?.txPackets ?? NaN;
    this.lost = rate ? lost(rate) : NaN;
    this.cpu = this.span.cpu();
    this.memory = sample.use?.memory ?? NaN;
    this.past.add(now, this);
  }
}

// Readings tells of "change" when there are new figures, and when there are none though
// there should be.
export class Readings extends EventTarget {
  servers = new Map(); // by ID
  past = new Past("both"); // of all together
  one = null; // the ID that is asked for in detail
  detail = null; // its last Span, with all counters
  live = false;
  error = ""; // what ipmd says against it
  last = 0; // when the last answer came

  start() {
    this.ask();
  }

  async ask() {
    const begun = performance.now();
    try {
      const [all, one] = await Promise.all([get("stats?maxAge=500ms&mib=no"), this.one && get("stats?maxAge=500ms&id=" + this.one).catch(notThere)]);
      this.take(all, one);
      this.live = true;
      this.error = "";
    } catch (err) {
      this.live = false;
      this.error = err.status ? err.message : ""; // why ipmd refuses, if it is there
    }
    this.dispatchEvent(new Event("change"));
    // In a tab that nobody sees, browsers let this wait.
    setTimeout(() => this.ask(), Math.max(interval / 4, interval - (performance.now() - begun)));
  }

  take(all, one) {
    const now = (this.last = Date.now());
    const servers = new Map();
    let rx = 0, tx = 0;
    for (const sample of all) {
      const server = this.servers.get(sample.id) ?? new Server();
      server.read(sample, now);
      servers.set(sample.id, server);
      rx += server.rx || 0;
      tx += server.tx || 0;
    }
    this.servers = servers;
    this.sum = { rx, tx, both: rx + tx };
    this.past.add(now, this.sum);
    const sample = one?.[0];
    if (sample?.id !== this.one) this.detail = null; // gone, or another one is asked for by now
    else if (sample.time !== this.detail?.is.time) this.detail = new Span(this.detail?.is, sample);
  }

  look(id) {
    this.one = id;
    this.detail = null;
  }
}

async function get(path) {
  const res = await fetch(path, { signal: AbortSignal.timeout(patience), cache: "no-store" });
  const body = await res.json().catch(() => ({ error: res.status + " " + res.statusText }));
  if (res.ok) return body;
  throw Object.assign(new Error(body.error), { status: res.status });
}

function notThere(err) {
  if (err.status === 404) return null;
  throw err;
}
