package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// table is printed with the method in one line above it.
type table struct {
	title, method string
	columns       []string
	rows          [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print() {
	fmt.Printf("\n%s\n%s\n\n", t.title, t.method)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{t.columns}, t.rows...) {
		fmt.Fprintln(w, "  "+strings.Join(row, "\t"))
	}
	w.Flush()
}

// median of an odd or even number of values; it leaves them in place.
func median[T float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// quotients of two variants, round by round: what was slow for both in a round does not show.
func quotients[T float64 | time.Duration](values, to []T) []float64 {
	out := make([]float64, len(values))
	for i := range values {
		out[i] = float64(values[i]) / float64(to[i])
	}
	return out
}

// ratios is their median.
func ratios[T float64 | time.Duration](values, to []T) float64 { return median(quotients(values, to)) }

// spread is their median, with the lowest and the highest.
func spread(values, to []float64) string {
	q := quotients(values, to)
	return fmt.Sprintf("%s (%.2f to %.2f)", times(median(q)), slices.Min(q), slices.Max(q))
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

func times(ratio float64) string { return fmt.Sprintf("%.2fx", ratio) }

func megabytes(bytes float64) string { return fmt.Sprintf("%.1f MB", bytes/1e6) }
