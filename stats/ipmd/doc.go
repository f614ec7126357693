// Package ipmd answers stats requests: a [Server] on a unix socket, or on any listener
// with mutual TLS, and the [Client] that asks it.
//
//	GET /stats               all virtual servers, a JSON array of stats.Sample
//	GET /stats?id=8&id=web   those, by number or name
//	GET /stats?mib=no        without the protocols' counters, nine tenths of an answer
//	GET /cluster/stats       those of all nodes, a JSON ClusterAnswer; id as above,
//	                         node=b those of some nodes alone, timeout=1s how long
//	                         nodes may take (3 s)
//	GET /metrics             all, for Prometheus (text, or OpenMetrics on request)
//	GET /healthz             ok
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
// It does not know which virtual servers there are (Server.Sources does), and keeps
// no counters.
//
// Contract: /stats is complete or it is an error; /metrics gives what can be
// read, and one bad virtual server never takes the others' figures away.
package ipmd
