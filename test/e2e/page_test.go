package e2e_test

import (
	"fmt"
	"strings"
	"testing"
)

// names is what the page's table shows, from the top.
const names = `[...document.querySelectorAll("#servers tbody a")].map((a) => a.textContent).join()`

// cell is a figure in the table, by the virtual server's number and the column.
func cell(id int, column string) string {
	return fmt.Sprintf(`document.querySelector('#servers tr[data-id="%d"] .col-%s').textContent`, id, column)
}

// datagram is how many bytes an interface counts for one that sendTo sends.
const datagram = 1000 + 42

// near tells whether a figure of the page is within a tenth of what it should be: it
// is an average over about a second.
func near(text string, want float64) string {
	return fmt.Sprintf(`Math.abs(parseFloat(%[1]s) * ({ K: 1e3, M: 1e6 }[%[1]s.at(-1)] ?? 1) / %[2]f - 1) < 0.1`, text, want)
}

func TestPage(t *testing.T) {
	s := newSite(t)
	for id, name := range map[int]string{8: "finance", 9: "web", 10: "archive"} {
		s.MustVsrun(t, "create", fmt.Sprint(id), "--name", name, "--no-probe", "--port", "eth1", "--address", fmt.Sprintf("192.0.2.%d/24", id))
	}
	s.MustVsrun(t, "service", "add", "9", "sleeper", "--", "sleep", "1000")
	// Whoever is inside names interfaces as he likes.
	const hostile = `<img>&lt;"'`
	s.Run(t, "ip", "-n", "vs10", "link", "add", hostile, "type", "veth", "peer", "name", "<script>")
	ipmd := startIPMD(t, s.Host)
	b := openBrowser(t, forward(t, ipmdSocket(s.Host)))
	sendTo(t, s.client, "192.0.2.9", 400)
	sendTo(t, s.client, "192.0.2.8", 50)

	b.until("live, the busiest first", names+` === "web,finance,archive" && document.querySelector("#state").textContent === "Live"`)
	b.colors("dark")
	b.shoot("list-dark")
	b.colors("light")
	b.shoot("list-light")
	b.until("the rates that are sent", near(cell(9, "rx"), 400*datagram)+" && "+near(cell(8, "rx"), 50*datagram)+" && "+near(cell(9, "rxPackets"), 400))
	b.click("#servers .col-name button")
	b.until("sorted by name", names+` === "archive,finance,web" && document.querySelector("th.col-name").ariaSort === "ascending"`)
	b.click("#servers .col-id button")
	b.click("#servers .col-id button")
	b.until("sorted by number, the other way round", names+` === "archive,web,finance" && document.querySelector("th.col-id").ariaSort === "descending"`)
	b.press("/")
	b.press("f")
	b.until("filtered", names+` === "finance"`)
	eval[bool](b, `(() => { const f = document.querySelector("#filter"); f.value = ""; f.dispatchEvent(new Event("input")); f.blur(); return true })()`)
	b.click("#servers .col-rate button")
	b.until("all again", names+` === "web,finance,archive"`)

	pageOfOne(t, b, hostile)
	pageAfterRestart(t, s, b, func() { ipmd.Stop() }, func() { startIPMD(t, s.Host) })
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		if !strings.Contains(fault, "net::ERR_") { // ipmd was away
			t.Errorf("the browser says %s", fault)
		}
	}
}

// pageOfOne looks into virtual servers.
func pageOfOne(t *testing.T, b *browser, hostile string) {
	eval[bool](b, `(document.querySelector('#servers tr[data-id="8"] a').focus(), true)`)
	b.press("Enter")
	b.until("finance alone", `document.querySelector("#one-name").textContent === "finance (vs8)" && document.querySelector("#all").hidden`)
	b.press("Escape")
	b.until("all again", `!document.querySelector("#all").hidden`)
	b.click(`#servers tr[data-id="9"] .col-rx`)
	b.until("what web counts", `document.querySelector("#one-name").textContent === "web (vs9)" && `+
		near(`document.querySelector("#table-Interfaces tbody tr").cells[1].textContent`, 400*datagram))
	b.until("its counters' rates", near(`[...document.querySelectorAll("#counters tbody tr")].find((r) => r.cells[1].textContent === "NoPorts").cells[3].textContent`, 400))
	b.until("its chart", `document.querySelector("#chart-traffic path.in").getAttribute("d").length > 20`)
	b.shoot("one-light")
	b.size(390, 780)
	b.shoot("one-narrow")
	b.size(1280, 800)
	eval[bool](b, `(location.hash = "#10", true)`)
	b.until("a hostile name as text", fmt.Sprintf(`[...document.querySelectorAll("#table-Interfaces td")].some((c) => c.textContent === %q)`, hostile))
	if eval[bool](b, `Boolean(document.querySelector("main img, main script"))`) {
		t.Error("a name became a part of the page")
	}
	eval[bool](b, `(location.hash = "#77", true)`)
	b.until("that there is none", `document.querySelector("#one-gone").textContent === "It is not enabled, or there is none."`)
	eval[bool](b, `(location.hash = "", true)`)
}

// pageAfterRestart has ipmd go and come back.
func pageAfterRestart(t *testing.T, s *site, b *browser, stop, start func()) {
	b.until("live", `document.querySelector("#state").textContent === "Live"`)
	stop()
	b.until("stale", `/^No answer from ipmd; trying again \(figures are \d+ s old\)$/.test(document.querySelector("#live").textContent) && document.querySelector("main.stale-figures")`)
	b.shoot("stale")
	s.MustVsrun(t, "create", "11", "--name", "new")
	start()
	b.until("live again, and another one there", `document.querySelector("#state").textContent === "Live" && `+names+`.includes("new")`)
	s.MustVsrun(t, "disable", "9")
	b.until("one less", `!`+names+`.includes("web")`)
	eval[bool](b, `(window.wild = [], new MutationObserver(() => {
		const rate = document.querySelector('#servers tr[data-id="9"] .col-rx')?.textContent;
		if (/[MGTPE]$/.test(rate)) wild.push(rate);
	}).observe(document.querySelector("#servers"), { subtree: true, childList: true, characterData: true }), true)`)
	s.MustVsrun(t, "enable", "9")
	b.until("what counts anew", names+`.includes("web") && `+near(cell(9, "rx"), 400*datagram))
	eval[bool](b, `(location.hash = "#9", true)`)
	b.until("what it counted in both of its lives", `
		Number(document.querySelector("#table-Totals tr.total").cells[1].textContent.replace(/\D/g, "")) >
		Number(document.querySelector("#table-Interfaces tr.total").cells[6].textContent.replace(/\D/g, "")) + 400 * 1042`)
	b.shoot("one-again")
	if wild := eval[[]string](b, "wild"); len(wild) > 0 {
		t.Errorf("what counts anew had a rate of %v", wild)
	}
}
