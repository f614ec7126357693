// Figures as people read them.

const units = ["", "K", "M", "G", "T", "P", "E"];

const unknown = (v) => v === null || v === undefined || Number.isNaN(v);

// short has three digits and a letter for the unit, with what stands between them; a
// dash where nothing is known.
export function short(v, step = 1000, between = "") {
  if (unknown(v)) return "–";
  let unit = 0;
  while (v >= 999.5 && unit < units.length - 1) {
    v /= step;
    unit++;
  }
  if (unit === 0 && v > 0 && v < 0.05) return "<0.1" + between;
  const whole = unit === 0 && (Number.isInteger(v) || v >= 99.95);
  const digits = whole || v >= 99.95 ? 0 : v < 9.995 && unit > 0 ? 2 : 1;
  return v.toFixed(digits) + between + units[unit];
}

const space = "\u202f"; // narrow, and no place to break

export const perSecond = (v) => (unknown(v) ? "–" : short(v, 1000, space) + "B/s");
export const memory = (v) => (unknown(v) ? "–" : short(v, 1024, space) + (v >= 999.5 ? "iB" : "B"));
export const percent = (v) => (unknown(v) ? "–" : (100 * v).toFixed(v < 0.9995 ? 1 : 0) + space + "%");
export const exact = (v) => (unknown(v) ? "–" : Number(v).toLocaleString("en").replaceAll(",", space));
