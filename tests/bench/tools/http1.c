// HTTP/1.1 of the load generator: one request at a time on each connection, kept open.
#define _GNU_SOURCE
#include "load.h"

static char request[1024];
static size_t request_len;

void http1_prepare(void)
{
	int len = snprintf(request, sizeof request,
		"GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: leno-bench\r\nAccept: */*\r\n%s\r\n",
		options.path, options.host, one_request_each() ? "Connection: close\r\n" : "");
	if (len < 0 || (size_t)len >= sizeof request) {
		fprintf(stderr, "load: path and host are too long\n");
		exit(2);
	}
	request_len = (size_t)len;
}

void http1_begin(struct connection *connection, uint64_t scheduled_ns)
{
	connection->scheduled_ns = scheduled_ns;
	connection->in_flight = 1;
	connection->in_body = false;
	connection->in.len = 0;
}

const char *http1_request(size_t *len)
{
	*len = request_len;
	return request;
}

enum io http1_send(struct connection *connection, uint64_t scheduled_ns)
{
	http1_begin(connection, scheduled_ns);
	// A request is small and the socket's buffer empty: the kernel takes it whole or not at all.
	return send(connection->fd, request, request_len, MSG_NOSIGNAL) == (ssize_t)request_len ? IO_DONE : IO_DEAD;
}

// The value of content-length, or -1.
static long long content_length(const char *head, const char *end)
{
	static const char name[] = "content-length:";
	while (head < end) {
		const char *line_end = memchr(head, '\n', (size_t)(end - head));
		if (!line_end)
			return -1;
		if (line_end - head > (long)sizeof name && !strncasecmp(head, name, sizeof name - 1))
			return strtoll(head + sizeof name - 1, NULL, 10);
		head = line_end + 1;
	}
	return -1;
}

// Reads the head once it is whole, and leaves in `body_left` what is still to come after `in`.
static enum io read_head(struct connection *connection)
{
	static bool told;
	char *head = (char *)connection->in.bytes;
	char *end = memmem(head, connection->in.len, "\r\n\r\n", 4);
	if (!end)
		return IO_BLOCKED;
	long long body = content_length(head, end + 2);
	if (body < 0) {
		if (!told)
			fprintf(stderr, "load: an answer without content-length: %.*s\n", (int)(end - head), head);
		told = true;
		return IO_DEAD;
	}
	connection->status_ok = end - head >= 12 && !memcmp(head + 9, "200", 3);
	connection->body_left = body - (long long)(connection->in.len - (size_t)(end + 4 - head));
	connection->in_body = true;
	connection->in.len = 0;
	return IO_DONE;
}

enum io http1_got(struct connection *connection, size_t n)
{
	count_bytes(n);
	if (connection->in_body) {
		connection->body_left -= (long long)n;
	} else {
		connection->in.len += n;
		enum io head = read_head(connection);
		if (head != IO_DONE)
			return head;
	}
	return connection->body_left <= 0 ? IO_DONE : IO_BLOCKED;
}

// One recv. IO_DONE: the answer is whole.
static enum io receive_some(struct connection *connection, size_t *got, size_t *room)
{
	buffer_reserve(&connection->in, RECEIVE_ROOM);
	*room = connection->in.capacity - connection->in.len;
	ssize_t n = recv(connection->fd, connection->in.bytes + connection->in.len, *room, 0);
	if (n <= 0)
		return n < 0 && errno == EAGAIN ? IO_BLOCKED : IO_DEAD;
	*got = (size_t)n;
	return http1_got(connection, *got);
}

enum io http1_receive(struct connection *connection)
{
	size_t got = 1, room = 1;
	enum io result = IO_BLOCKED;
	while (result == IO_BLOCKED && got == room) {
		got = 0;
		result = receive_some(connection, &got, &room);
	}
	if (result == IO_DONE && connection->in_flight) {
		connection->in_flight = 0;
		record(connection->scheduled_ns, connection->status_ok);
	}
	return result;
}
