package service

import "testing"

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "1": 1, "4096": 4096, "1K": 1 << 10, "512M": 512 << 20, "2G": 2 << 30, "1T": 1 << 40,
		"0": -1, "-1": -1, "M": -1, "1MM": -1, "1m": -1, "1.5G": -1, "1 G": -1, "99999999999T": -1, "9999999999999999999": -1,
	} {
		got, err := parseBytes(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

func TestParsePercent(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "1%": 1, "50%": 50, "200%": 200, "102400%": 102400,
		"50": -1, "0%": -1, "-5%": -1, "%": -1, "50%%": -1, "1.5%": -1, "102401%": -1,
	} {
		got, err := parsePercent(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
