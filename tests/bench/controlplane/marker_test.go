package main

import (
	"slices"
	"testing"
)

func TestMarkersAreFoundInEveryFormTheyCanTake(t *testing.T) {
	cases := []struct {
		name    string
		message string
		want    []int
	}{
		{"text", "addresses: 172.16.1.2:8080, 10.0.0.1", []int{1<<8 | 2}},
		{"four bytes", "\x0a\x04\xac\x1f\x00\x07\x10\x01", []int{15<<16 | 7}},
		{"route", "exact: /marker-1048575/", []int{1<<markerBits - 1}},
		{"two of them", "172.16.0.1 172.17.0.1", []int{1, 1<<16 | 1}},
		{"another range", "172.32.0.1 172.15.0.1", nil},
		{"cut short", "172.16.0", nil},
		{"an ordinary address", markerless(), nil},
	}
	for _, c := range cases {
		var got []int
		findMarkers([]byte(c.message), func(marker int) { got = append(got, marker) })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: found %v, want %v", c.name, got, c.want)
		}
	}
}

func TestAMarkersAddressAndRouteAreFoundAsThatMarker(t *testing.T) {
	for _, marker := range []int{0, 255, 256, 65536, 1<<markerBits - 1} {
		for _, text := range []string{markerAddress(marker), routeMarker(marker)} {
			var got []int
			findMarkers([]byte(text), func(found int) { got = append(got, found) })
			if !slices.Equal(got, []int{marker}) {
				t.Errorf("%s: found %v, want %d", text, got, marker)
			}
		}
	}
}

func markerless() string { return world{services: 10, endpoints: 10, perNamespace: 10}.address(3, 4) }
