package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"strconv"
)

// This file finds the reading of one virtual server in a checkpoint of a thousand, as seal
// has written it, without decoding all others.

// last is all with one reading alone, if there is one.
func (b *Book) last(id int) (readings, error) {
	text, err := b.Read(b.readingsPath())
	if errors.Is(err, fs.ErrNotExist) {
		return readings{}, nil
	}
	if body, ok := unsealText(text); err == nil && ok {
		if r, _, _, err := locate(body, id); err == nil {
			return r, nil
		}
	}
	return b.all()
}

// unsealText is what a file has that is as seal writes it, and fits its checksum.
func unsealText(text []byte) (body []byte, ok bool) {
	rest, ok := bytes.CutPrefix(text, []byte(`{"crc32":`))
	number, rest, cut := bytes.Cut(rest, []byte(`,"ledger":`))
	body, end := bytes.CutSuffix(rest, []byte("}\n"))
	sum, err := strconv.ParseUint(string(number), 10, 32)
	return body, ok && cut && end && err == nil && crc32.ChecksumIEEE(body) == uint32(sum)
}

// locate is the reading of one, and its place in the text with its key. In no string of JSON's
// is a quote that ends none.
func locate(body []byte, id int) (r readings, start, end int, err error) {
	key := fmt.Appendf(nil, `"%d":`, id)
	start = bytes.Index(body, append(slices.Clone(key), `{"token":`...))
	if start < 0 {
		return readings{}, 0, 0, nil
	}
	dec := json.NewDecoder(bytes.NewReader(body[start+len(key):]))
	r = readings{}
	e := r[id]
	err = dec.Decode(&e)
	r[id] = e
	return r, start, start + len(key) + int(dec.InputOffset()), err
}

// without is the text less the readings of some.
func without(body []byte, ids []int) []byte {
	var cuts [][2]int
	for _, id := range ids {
		if _, start, end, err := locate(body, id); err == nil && end > 0 {
			if end < len(body) && body[end] == ',' {
				end++
			}
			cuts = append(cuts, [2]int{start, end})
		}
	}
	slices.SortFunc(cuts, func(a, b [2]int) int { return a[0] - b[0] })
	var rest []byte
	from := 0
	for _, cut := range cuts {
		rest = append(rest, body[from:cut[0]]...)
		from = cut[1]
	}
	rest = append(rest, body[from:]...)
	if last, ok := bytes.CutSuffix(rest, []byte(",}")); ok {
		return append(last, '}')
	}
	return rest
}
