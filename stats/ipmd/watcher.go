package ipmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"
)

// After these a watch that was cut off is begun again.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// Watch asks again and again, and has each answer in which something has changed: at
// first everything, then changes, and everything once more when a virtual server has
// gone. The interval is 1 s if it is 0, and at most 1 m.
//
// A connection that is lost is made again, with nothing missed; the error is told each
// time, and the loop may go on, or end. It ends by itself with ctx, and with an error
// that stays: one that ErrForbidden or ErrNotFound is, or a query that makes no sense.
func (c Client) Watch(ctx context.Context, q Query, interval time.Duration) iter.Seq2[Answer, error] {
	return func(yield func(Answer, error) bool) {
		retry := firstRetry
		for {
			err := c.stream(ctx, q, interval, func(a Answer) bool {
				q.Since, retry = a.Cursor, firstRetry
				return yield(a, nil)
			})
			switch {
			case ctx.Err() != nil, errors.Is(err, errStopped):
				return
			case !yield(Answer{}, err), stays(err):
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(retry):
			}
			retry = min(2*retry, lastRetry)
		}
	}
}

// errStopped is that nobody wants more.
var errStopped = errors.New("stopped")

func stays(err error) bool {
	e, ok := errors.AsType[*answeredError](err)
	return ok && !e.Is(ErrBusy)
}

// stream is one connection of a watch.
func (c Client) stream(ctx context.Context, q Query, interval time.Duration, each func(Answer) bool) error {
	v := q.values()
	v.Del("maxAge") // it goes by the interval
	v.Del("since")
	header := http.Header{}
	if q.Since != "" {
		header.Set("Last-Event-ID", q.Since)
	}
	if interval > 0 {
		v.Set("interval", interval.String())
	}
	res, err := c.get(ctx, "/stats/stream?"+v.Encode(), header)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	err = readEvents(res.Body, func(e event) error {
		if e.name != eventAll && e.name != eventChanges {
			return nil
		}
		a := Answer{Cursor: e.id, Changes: e.name == eventChanges}
		if err := json.Unmarshal(e.data, &a.Samples); err != nil {
			return err
		}
		if !each(a) {
			return errStopped
		}
		return nil
	})
	if errors.Is(err, errStopped) {
		return err
	}
	return fmt.Errorf("the stream of ipmd on %s has ended: %w", c.Socket, err)
}

// An event is one that a server has sent.
type event struct {
	id, name string
	data     []byte
}

// readEvents calls each for every event until it fails, or there are no more: then
// the error is io.EOF (HTML, section 9.2.6).
func readEvents(r io.Reader, each func(event) error) error {
	lines := bufio.NewReaderSize(r, 64<<10)
	var e event
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			if e.data != nil {
				if err := each(e); err != nil {
					return err
				}
			}
			e = event{id: e.id}
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "id":
			e.id = string(value)
		case "event":
			e.name = string(value)
		case "data":
			e.data = append(append(e.data, value...), '\n')
		}
	}
}
