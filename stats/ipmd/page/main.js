import { perSecond } from "./figures.js";
import { spark } from "./chart.js";
import { Readings, interval } from "./readings.js";
import { Table, put } from "./table.js";
import * as detail from "./detail.js";

const $ = (id) => document.getElementById(id);
const readings = new Readings();
const table = new Table($("servers"), readings);

function draw() {
  state();
  if (readings.one) detail.draw(readings);
  else drawAll();
}

function drawAll() {
  const { sum, servers } = readings;
  table.arrange();
  table.draw();
  if (!sum) return;
  put($("sum-count"), String(servers.size));
  put($("sum-rx"), perSecond(sum.rx));
  put($("sum-tx"), perSecond(sum.tx));
  plain($("sum-chart"));
  const shown = table.order.length;
  put($("count"), shown < servers.size ? `${shown} of ${servers.size}` : "");
  $("nothing").hidden = shown > 0;
  put($("nothing"), servers.size ? "No name or number has that in it." : "No virtual server is enabled.");
}

// plain draws lines without a scale: there is no room.
function plain(svg) {
  svg.setAttribute("viewBox", "0 0 600 30");
  svg.setAttribute("preserveAspectRatio", "none");
  spark(svg, readings.past, "both", 300, 600, 30);
}

// state says whether what is seen is what is. The age is not for who hears the page:
// it is another one each second.
function state() {
  const age = Math.round((Date.now() - readings.last) / 1000);
  const stale = !readings.live || age > 3 * (interval / 1000);
  $("live").classList.toggle("stale", stale);
  document.querySelector("main").classList.toggle("stale-figures", stale && readings.last > 0);
  put($("state"), stale ? (readings.error || "No answer from ipmd") + "; trying again" : "Live");
  put($("age"), stale && readings.last ? `(figures are ${age} s old)` : "");
}

function route() {
  const id = /^#(\d+)$/.exec(location.hash)?.[1];
  if (readings.one !== (id ? Number(id) : null)) detail.clear();
  readings.look(id ? Number(id) : null);
  $("all").hidden = Boolean(id);
  $("one").hidden = !id;
  draw();
  if (id) {
    scrollTo(0, 0);
    $("one-name").focus();
  }
}

addEventListener("hashchange", route);
addEventListener("resize", draw);
addEventListener("keydown", (e) => {
  if (e.key === "/" && e.target.tagName !== "INPUT") {
    e.preventDefault();
    $(readings.one ? "counter-filter" : "filter").focus();
  } else if (e.key === "Escape" && e.target.tagName !== "INPUT" && readings.one) {
    location.hash = "";
  }
});
$("filter").addEventListener("input", () => {
  table.filter($("filter").value);
  draw();
});
$("counter-filter").addEventListener("input", draw);
$("zeros").addEventListener("input", draw);
readings.addEventListener("change", draw);
setInterval(state, interval);
route();
readings.start();
