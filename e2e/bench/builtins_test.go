package main

import "testing"

func TestEveryBuiltinIsMeasured(t *testing.T) {
	if _, err := builtinCases(); err != nil {
		t.Error(err)
	}
}
