// Package push sends metrics to where operators keep them: by Prometheus' remote
// write 1.0, which Prometheus, VictoriaMetrics, Mimir, Thanos and others take.
//
// It sends what /metrics says, line by line: which figures there are and what they
// are called is decided there alone. It keeps no figures either: counters go on, so
// a push that is lost costs resolution and nothing else.
//
// Whoever answers requests never waits for a push.
package push
