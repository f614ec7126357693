package ipmd

import (
	"mime"
	"strconv"
	"strings"

	"github.com/vsrun/vsrun/stats"
)

// acceptedFormat is OpenMetrics for a client that asks for it and does not like
// plain text better (RFC 9110, section 12.5.1), and plain text for all others.
func acceptedFormat(accept []string) stats.Format {
	var open, text float64
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if v, err := strconv.ParseFloat(params["q"], 64); err == nil {
			q = v
		}
		switch version := params["version"]; {
		case kind == "application/openmetrics-text" && (version == "" || version == "1.0.0"):
			open = max(open, q)
		case kind == "text/plain", kind == "text/*", kind == "*/*":
			text = max(text, q)
		}
	}
	if open > 0 && open >= text {
		return stats.OpenMetrics
	}
	return stats.PrometheusText
}
