// The load generator's parts: load.c drives, http1.c and http2.c speak.
#ifndef LENO_BENCH_LOAD_H
#define LENO_BENCH_LOAD_H

#include "common.h"

enum mode { MODE_HTTP1, MODE_HTTP2, MODE_NEW, MODE_IDLE };
enum { STREAM_SLOTS = 4096 };   // a power of two above the streams open at once

struct options {
	enum mode mode;
	struct sockaddr_in target;
	const char *host, *path;
	int connections, streams;
	double seconds, warm_up_seconds;
	double rate;            // requests per second; 0: as fast as answers come
};

struct connection {
	int fd;                 // -1: not open
	bool connected, wants_write, going_away;
	int in_flight;
	struct buffer in, out;

	// HTTP/1
	bool in_body, status_ok;
	long long body_left;
	uint64_t scheduled_ns;

	// HTTP/2
	uint32_t next_stream, window_used;
	uint64_t *stream_scheduled_ns;
	bool *stream_has_data;
};

extern struct options options;

uint64_t now_ns(void);

// Counts one finished request, with its time since the instant it was due.
void record(uint64_t scheduled_ns, bool good);

// Each protocol's part. `send` starts one request; `receive` handles what has come and calls
// `record` for each answer. IO_DEAD: the connection is of no more use.
void http1_prepare(void);
enum io http1_send(struct connection *connection, uint64_t scheduled_ns);
enum io http1_receive(struct connection *connection);

void http2_prepare(void);
void http2_open(struct connection *connection);
void http2_send(struct connection *connection, uint64_t scheduled_ns);
enum io http2_receive(struct connection *connection);

#endif
