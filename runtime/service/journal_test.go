package service

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every line has its time, long lines are several, and what has no end is kept too.
func TestJournal(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	j := newJournal(root, "a", nil)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", lineSize)
	fmt.Fprintf(out, "one\n\ntwo %s\nrest", long)
	out.Close()
	before := time.Now().Add(-time.Second)
	(&feed{journal: j, pipe: in}).collect()
	var got []string
	for line := range strings.Lines(read(t, filepath.Join(root.Name(), "a.log"))) {
		stamp, text, _ := strings.Cut(line, " ")
		at, err := time.Parse(Stamp, stamp)
		if err != nil || at.Before(before) || at.After(time.Now().Add(time.Second)) {
			t.Errorf("%q: %v", line, err)
		}
		got = append(got, strings.TrimSuffix(text, "\n"))
	}
	want := []string{"one", "", "two " + long[:lineSize-4], long[:4], "rest"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %d lines of %q", len(got), got)
	}
}

// However much is written, no more than four files of bounded size are kept, and of
// the latest nothing is lost.
func TestJournalIsBounded(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	j := newJournal(root, "a", nil)
	const lines = 6 * journalSize / 1024
	filler := strings.Repeat("y", 1000)
	for k := range lines {
		fmt.Fprintf(j, "%d %s\n", k, filler)
	}
	next := -1
	for _, file := range Journal(root.Name(), "a") {
		text := read(t, file)
		if len(text) > journalSize+2048 {
			t.Errorf("%s has %d bytes", file, len(text))
		}
		for line := range strings.Lines(text) {
			var n int
			if _, err := fmt.Sscanf(strings.Fields(line)[1], "%d", &n); err != nil || next >= 0 && n != next {
				t.Fatalf("%s: %.60s, not line %d: %v", file, line, next, err)
			}
			next = n + 1
		}
	}
	if next != lines {
		t.Errorf("the last line is %d, not %d", next-1, lines-1)
	}
	entries, _ := os.ReadDir(root.Name())
	if len(entries) != journalKeep+1 {
		t.Errorf("%v", entries)
	}
}

// What a service has said is in its log when it is said to have ended, however busy the
// machine is, and with another process that goes on.
func TestLastWordsBeforeTheEnd(t *testing.T) {
	v := up(t)
	words := strings.Repeat("0123456789abcde\n", 2000) + "the end"
	for k := range 20 {
		name := fmt.Sprint("a", k)
		s := sh(name, "printf %s \"$WORDS\"; sleep 32011 & exit 0")
		s.Restart, s.Environment = RestartNever, map[string]string{"WORDS": words + "\n"}
		if k%2 == 0 { // no end of the last line, and nobody who could go on with it
			s.Command[2], s.Environment["WORDS"] = "printf %s \"$WORDS\"", words
		}
		if err := v.Set(t.Context(), []Service{s}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has ended", func() bool { return v.unit(name).State == Finished })
		if got := said(v, name); got != words+"\n" {
			t.Fatalf("%s: %d bytes of %d: …%q", name, len(got), len(words)+1, got[max(0, len(got)-50):])
		}
	}
}

// The last words of a service that ends with its virtual server are kept, however
// many they are.
func TestLastWords(t *testing.T) {
	v := up(t, sh("a", `trap 'i=0; while [ $i -lt 2000 ]; do echo "word $i"; i=$((i+1)); done; exit' TERM; echo up; while :; do sleep 0.01; done`))
	waitForLog(v, "a", "up\n")
	if killed, err := v.Shutdown(t.Context(), 10*time.Second); err != nil || killed != nil {
		t.Errorf("%q, %v", killed, err)
	}
	if text := said(v, "a"); !strings.HasSuffix(text, "word 1999\n") {
		t.Errorf("%d bytes: …%s", len(text), text[max(0, len(text)-100):])
	}
}
