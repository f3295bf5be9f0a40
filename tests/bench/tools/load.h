// The load generator's parts: load.c drives, http1.c, http2.c and tls.c speak.
#ifndef LENO_BENCH_LOAD_H
#define LENO_BENCH_LOAD_H

#include "common.h"

enum mode { MODE_HTTP1, MODE_HTTP2, MODE_NEW, MODE_TLS, MODE_IDLE, MODE_FIRST };
enum { STREAM_SLOTS = 4096 };   // a power of two above the streams open at once
enum { RECEIVE_ROOM = 1 << 16 };   // bytes that one read of HTTP/1 has room for

struct options {
	enum mode mode;
	struct sockaddr_in target;
	const char *host, *path;
	int connections, streams, message_len;
	double seconds, warm_up_seconds;
	double rate;            // requests per second; 0: as fast as answers come
	const char *ca, *certificate, *key, *alpn;   // of mode tls
};

struct connection {
	int fd;                 // -1: not open
	bool connected, wants_write, going_away;
	int in_flight;
	struct buffer in, out;

	struct ssl_st *tls;
	bool tls_is_up;

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

// Whether each connection carries one request.
static inline bool one_request_each(void)
{
	return options.mode == MODE_NEW || options.mode == MODE_TLS;
}

// Counts bytes of answers.
void count_bytes(size_t n);

// Counts one finished request, with its time since the instant it was due.
void record(uint64_t scheduled_ns, bool good);

// Each protocol's part. `send` starts one request; `receive` handles what has come and calls
// `record` for each answer. IO_DEAD: the connection is of no more use.
void http1_prepare(void);
const char *http1_request(size_t *len);
void http1_begin(struct connection *connection, uint64_t scheduled_ns);
// Takes `n` bytes that have been put after `in`. IO_DONE: the answer is whole.
enum io http1_got(struct connection *connection, size_t n);
enum io http1_send(struct connection *connection, uint64_t scheduled_ns);
enum io http1_receive(struct connection *connection);

void http2_prepare(void);
void http2_open(struct connection *connection);
void http2_send(struct connection *connection, uint64_t scheduled_ns);
enum io http2_receive(struct connection *connection);

// HTTP/1.1 inside a TLS 1.3 connection that is made anew, without a session, for one request.
// `step` goes on as far as the socket lets it, and records the answer.
void tls_prepare(void);
void tls_open(struct connection *connection, uint64_t scheduled_ns);
enum io tls_step(struct connection *connection);
void tls_close(struct connection *connection);

#endif
