// Latencies in buckets of at most 1.6 % width: 64 to each power of two nanoseconds.
#ifndef LENO_BENCH_HISTOGRAM_H
#define LENO_BENCH_HISTOGRAM_H

#include <stdint.h>

enum { BUCKETS_PER_OCTAVE = 64, BUCKETS = 64 * BUCKETS_PER_OCTAVE };

struct histogram {
	uint64_t buckets[BUCKETS], count, max_ns;
};

static inline void histogram_add(struct histogram *histogram, uint64_t ns)
{
	int octave = ns < 2 * BUCKETS_PER_OCTAVE ? 0 : 63 - __builtin_clzll(ns) - 6;
	uint64_t bucket = (uint64_t)octave * BUCKETS_PER_OCTAVE + (ns >> octave);
	histogram->buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
	histogram->count++;
	if (ns > histogram->max_ns)
		histogram->max_ns = ns;
}

// The latency in µs that the share `quantile` of all stays below; 0 when there is none.
static inline double histogram_quantile_us(const struct histogram *histogram, double quantile)
{
	double wanted = quantile * (double)histogram->count;
	uint64_t seen = 0;
	for (uint64_t bucket = 0; bucket < BUCKETS && histogram->count; bucket++) {
		seen += histogram->buckets[bucket];
		if ((double)seen < wanted)
			continue;
		if (bucket < 2 * BUCKETS_PER_OCTAVE)
			return (double)bucket / 1000;
		uint64_t octave = bucket / BUCKETS_PER_OCTAVE - 1;
		uint64_t low = (bucket - octave * BUCKETS_PER_OCTAVE) << octave;
		return ((double)low + (double)(1ull << octave) / 2) / 1000;
	}
	return 0;
}

#endif
