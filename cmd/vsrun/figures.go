package main

import (
	"fmt"
	"time"

	"github.com/vsrun/vsrun/stats"
)

// short is a figure in three digits and a letter for the thousands; a dash where
// there is none.
func short(v *float64) string {
	if v == nil {
		return "-"
	}
	return scaled(*v, 1000)
}

func shortCount(n uint64) string { return scaled(float64(n), 1000) }

// scaled has three digits, two below ten of the unit's own.
func scaled(v, step float64) string {
	unit := 0
	for v >= 999.5 && unit < len(units)-1 {
		v, unit = v/step, unit+1
	}
	switch {
	case v == 0:
		return "0"
	case v < 0.05 && unit == 0:
		return "<0.1"
	case v < 10 && unit == 0:
		return fmt.Sprintf("%.2g%s", v, units[unit])
	case v < 1: // of 1024
		return fmt.Sprintf("%.2g%s", v, units[unit])
	case v >= 99.95:
		return fmt.Sprintf("%.0f%s", v, units[unit])
	}
	return fmt.Sprintf("%.3g%s", v, units[unit])
}

var units = []string{"", "K", "M", "G", "T", "P", "E"}

func perSecond(bytes float64) string { return scaled(bytes, 1000) + "B/s" }

// percent of one processor.
func percent(cpu *float64) *float64 {
	if cpu == nil {
		return nil
	}
	p := 100 * *cpu
	return &p
}

func lost(c stats.Counters) uint64 { return c.RxErrors + c.RxDropped + c.TxErrors + c.TxDropped }

func bytesUsed(n *int64) string {
	if n == nil {
		return ""
	}
	return scaled(float64(*n), 1024)
}

func cpuUsed(micros *int64) string {
	if micros == nil {
		return ""
	}
	return (time.Duration(*micros) * time.Microsecond).Round(time.Millisecond).String()
}

func counted(n *int64) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}
