// Package ipmd answers stats requests: a [Server] on a unix socket, or on any listener
// with mutual TLS, and the [Client] that asks it.
//
//	GET /stats               all virtual servers, a JSON array of stats.Sample
//	GET /stats?id=8&id=web   those, by number or name
//	    &interface=eth0      those interfaces alone, without the MIB
//	    &mib=no              without the protocols' counters, nine tenths of an answer
//	    &maxAge=500ms        from samples that are no older; Cache-Control: max-age=1 is
//	                         the same. 0 is a reading that began after the question.
//	    &since=CURSOR        those whose figures changed since the answer with that
//	                         cursor, which is in its header Ipmd-Cursor; Ipmd-Answer
//	                         says "changes", or "all" where that cannot be told
//	GET /stats/stream        the same as server-sent events, at each interval=1s: "all"
//	                         at first and whenever one has gone, else "changes"; "end"
//	                         when ipmd ends. Event IDs are cursors.
//	GET /cluster/stats       those of all nodes, a JSON ClusterAnswer; id, interface, mib
//	                         and maxAge as above, node=b those of some nodes alone,
//	                         timeout=1s how long nodes may take (3 s)
//	GET /metrics             all, for Prometheus (text, or OpenMetrics on request)
//	GET /healthz             ok
//	GET /openapi.yaml        all of this, as an OpenAPI document
//	GET /                    a web page that shows them, for a browser
//
// An error is a JSON object, {"error":"…","hint":"…"}, the hint where there is a cure:
// 403 for what the asker may not ask (see [Rule]), 404 for a virtual server that is not
// there, 500 when a counter could not be read. A virtual server that goes away while
// all are being read is left out, and one that the asker may not see is, too.
//
// Other nodes, and other remote askers, are answered over TCP: TLS 1.3, and both
// ends show a certificate. A node asks its peers only for what is theirs
// (/stats?absent=omit, which leaves out what they do not have), and measures the
// age of what it answers by its own clock.
//
// Samples are read when somebody asks, and shared: who asks while one is read waits for
// that reading. A cursor is good as long as this ipmd runs, and no virtual server goes.
//
// More requests, connections and watchers than [Limits] has are refused with 503, but
// first the longest idle connection, and the answer that is read the slowest, give way.
//
// It does not know which virtual servers there are (Server.Sources does), and keeps
// no counters.
//
// Contract: /stats is complete or it is an error; /metrics gives what can be
// read, and one bad virtual server never takes the others' figures away.
package ipmd
