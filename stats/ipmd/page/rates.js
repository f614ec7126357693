// What was counted in a second between two readings. What began to count anew, as an
// interface does that was made again, has no rate until it was read twice: NaN.

const fields = ["rxBytes", "txBytes", "rxPackets", "txPackets", "rxErrors", "txErrors", "rxDropped", "txDropped"];

export const lost = (c) => c.rxErrors + c.txErrors + c.rxDropped + c.txDropped;

export class Span {
  constructor(was, is) {
    this.is = is;
    const seconds = was ? (Date.parse(is.time) - Date.parse(was.time)) / 1000 : 0;
    const same = was && seconds > 0 && was.life === is.life;
    this.was = same ? was : null;
    this.seconds = seconds;
  }

  // of is the rate of one figure.
  of(was, is) {
    return was === undefined || is === undefined || is < was ? NaN : (is - was) / this.seconds;
  }

  interface(name) {
    const was = this.was?.interfaces.find((i) => i.name === name);
    const is = this.is.interfaces.find((i) => i.name === name);
    if (!was || !is || fields.some((f) => is[f] < was[f])) return null;
    return Object.fromEntries(fields.map((f) => [f, this.of(was[f], is[f])]));
  }

  // total is the sum over the interfaces that have a rate; null where there are
  // interfaces, and none has.
  total() {
    const none = this.was && this.is.interfaces.length === 0;
    let sum = none ? Object.fromEntries(fields.map((f) => [f, 0])) : null;
    for (const { name } of this.is.interfaces) {
      const rate = this.interface(name);
      if (rate) sum = sum ? Object.fromEntries(fields.map((f) => [f, sum[f] + rate[f]])) : rate;
    }
    return sum;
  }

  // cpu is in processors: 1 is one at work all the time.
  cpu(was = this.was?.use, is = this.is.use) {
    return was && is ? this.of(was.cpu, is.cpu) / 1e6 : NaN;
  }

  service(name) {
    const named = (s) => s.name === name;
    const was = this.was?.services?.find(named), is = this.is.services?.find(named);
    return was && is ? { cpu: this.cpu(was, is), read: this.of(was.readBytes, is.readBytes), written: this.of(was.writeBytes, is.writeBytes) } : {};
  }

  counter(group, name) {
    const of = group === "nf_conntrack" ? "conntrack" : "mib";
    return levels.has(group + "." + name) ? NaN : this.of(this.was?.[of]?.[group]?.[name], this.is[of]?.[group]?.[name]);
  }
}

// levels are set or measured, and not counted (RFC 4293, RFC 4022).
const levels = new Set(["Ip.Forwarding", "Ip.DefaultTTL", "Tcp.RtoAlgorithm", "Tcp.RtoMin", "Tcp.RtoMax", "Tcp.MaxConn", "Tcp.CurrEstab", "MPTcpExt.MPCurrEstab", "nf_conntrack.entries"]);
