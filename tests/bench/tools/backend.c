// backend: a single-threaded server with answers made beforehand, so that it costs next to nothing.
//
//   backend ADDRESS          loopback, like 127.0.0.1:19000
//
// HTTP/1.1: GET /b/N answers N bytes. HTTP/2 with prior knowledge: each request gets one
// gRPC-shaped unary answer. Both on the same port, told apart by the first four bytes.
#define _GNU_SOURCE
#include "common.h"

enum { ANSWERS_MAX = 16, BODY_MAX = 64 << 20, BODY_DEFAULT = 1024 };
enum protocol { UNKNOWN, HTTP1, HTTP2 };

struct answer {
	size_t body_len, len;
	char *bytes;
};

struct connection {
	int fd;
	enum protocol protocol;
	bool wants_write;
	struct buffer in;
	struct buffer out;      // HTTP/2 frames to be sent
	const char *answer;     // HTTP/1 answer being sent; not copied
	size_t answer_left;
	uint32_t window_used;
	uint32_t message_len;   // of HTTP/2: the longest that came, which its answers are as long as
};

// The frames of an HTTP/2 answer, with stream numbers to be filled in.
struct unary_answer {
	uint32_t message_len;
	struct buffer frames;
	size_t frame_at[3];
};

static int poll_fd;
static struct answer answers[ANSWERS_MAX];
static int answer_count;
static struct unary_answer unary_answers[ANSWERS_MAX];
static int unary_answer_count;

static void make_answer(struct answer *answer, size_t body_len)
{
	char head[128];
	int head_len = snprintf(head, sizeof head,
		"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %zu\r\n\r\n", body_len);
	answer->body_len = body_len;
	answer->len = (size_t)head_len + body_len;
	answer->bytes = malloc(answer->len);
	if (!answer->bytes)
		die("out of memory");
	memcpy(answer->bytes, head, (size_t)head_len);
	for (size_t i = 0; i < body_len; i++)
		answer->bytes[(size_t)head_len + i] = (char)('a' + (i * 7 + i / 64) % 26);
}

// The answer with a body of `body_len`; sizes beyond the limits get the default one.
static const struct answer *answer_of(size_t body_len)
{
	for (int i = 0; i < answer_count; i++)
		if (answers[i].body_len == body_len)
			return &answers[i];
	if (answer_count == ANSWERS_MAX || body_len > BODY_MAX)
		return &answers[0];
	make_answer(&answers[answer_count], body_len);
	return &answers[answer_count++];
}

static void add_unary_frame(struct unary_answer *answer, int index, enum frame_type type, uint8_t flags, const void *payload, uint32_t len)
{
	answer->frame_at[index] = answer->frames.len;
	append_frame(&answer->frames, type, flags, 0, payload, len);
}

// HEADERS, DATA and trailers.
static void make_unary_answer(struct unary_answer *answer, uint32_t message_len)
{
	// HPACK: ":status: 200" indexed, "content-type" by index 31, "grpc-status: 0" spelled out.
	static const char head[] = "\x88\x0f\x10\x10" "application/grpc";
	static const char trailers[] = "\x00\x0bgrpc-status\x01" "0";
	uint8_t message[MESSAGE_PREFIX_LEN + MESSAGE_MAX];
	answer->message_len = message_len;
	add_unary_frame(answer, 0, FRAME_HEADERS, FLAG_END_HEADERS, head, sizeof head - 1);
	add_unary_frame(answer, 1, FRAME_DATA, 0, message, unary_message(message, message_len));
	add_unary_frame(answer, 2, FRAME_HEADERS, FLAG_END_HEADERS | FLAG_END_STREAM, trailers, sizeof trailers - 1);
}

// The answer with a message of `message_len`; beyond the limit of how many there are the first one.
static struct unary_answer *unary_answer_of(uint32_t message_len)
{
	for (int i = 0; i < unary_answer_count; i++)
		if (unary_answers[i].message_len == message_len)
			return &unary_answers[i];
	if (unary_answer_count == ANSWERS_MAX)
		return &unary_answers[0];
	make_unary_answer(&unary_answers[unary_answer_count], message_len);
	return &unary_answers[unary_answer_count++];
}

static void answer_unary(struct connection *connection, uint32_t stream)
{
	struct unary_answer *answer = unary_answer_of(connection->message_len);
	for (int i = 0; i < 3; i++)
		set_frame_stream(answer->frames.bytes + answer->frame_at[i], stream);
	buffer_append(&connection->out, answer->frames.bytes, answer->frames.len);
}

// A message came whole, or a part of one.
static void note_message(struct connection *connection, uint32_t frame_len)
{
	uint32_t len = frame_len > MESSAGE_PREFIX_LEN + MESSAGE_MIN ? frame_len - MESSAGE_PREFIX_LEN : MESSAGE_MIN;
	if (len > connection->message_len && len <= MESSAGE_MAX)
		connection->message_len = len;
}

static void want_write(struct connection *connection, bool wanted)
{
	if (connection->wants_write == wanted)
		return;
	connection->wants_write = wanted;
	watch(poll_fd, EPOLL_CTL_MOD, connection->fd, connection, wanted);
}

static void finish(struct connection *connection)
{
	close(connection->fd);
	free(connection->in.bytes);
	free(connection->out.bytes);
	free(connection);
}

static enum io send_pending(struct connection *connection)
{
	if (connection->answer_left) {
		ssize_t n = send(connection->fd, connection->answer, connection->answer_left, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			return IO_DEAD;
		if (n > 0) {
			connection->answer += n;
			connection->answer_left -= (size_t)n;
		}
	}
	enum io result = connection->answer_left ? IO_BLOCKED : buffer_send(&connection->out, connection->fd);
	if (result != IO_DEAD)
		want_write(connection, result == IO_BLOCKED);
	return result;
}

static size_t requested_body_len(const char *head, size_t len)
{
	static const char prefix[] = "GET /b/";
	if (len < sizeof prefix || memcmp(head, prefix, sizeof prefix - 1))
		return BODY_DEFAULT;
	return strtoul(head + sizeof prefix - 1, NULL, 10);
}

// Answers the whole requests in `in`, one after the other; returns the bytes understood.
static ssize_t serve_http1(struct connection *connection)
{
	size_t done = 0;
	while (done < connection->in.len && !connection->answer_left) {
		char *head = (char *)connection->in.bytes + done;
		char *end = memmem(head, connection->in.len - done, "\r\n\r\n", 4);
		if (!end)
			break;
		const struct answer *answer = answer_of(requested_body_len(head, (size_t)(end - head)));
		done += (size_t)(end + 4 - head);
		connection->answer = answer->bytes;
		connection->answer_left = answer->len;
		if (send_pending(connection) == IO_DEAD)
			return -1;
	}
	return (ssize_t)done;
}

static void greet_http2(struct connection *connection)
{
	struct buffer settings = { 0 };
	connection->message_len = MESSAGE_MIN;
	append_setting(&settings, 3, 4096);      // MAX_CONCURRENT_STREAMS
	append_setting(&settings, 4, 1 << 20);   // INITIAL_WINDOW_SIZE
	append_frame(&connection->out, FRAME_SETTINGS, 0, 0, settings.bytes, (uint32_t)settings.len);
	append_window_update(&connection->out, WIDE_WINDOW);
	free(settings.bytes);
}

static ssize_t serve_http2(struct connection *connection, size_t done)
{
	struct frame frame;
	while (read_frame(connection->in.bytes + done, connection->in.len - done, &frame)) {
		if (frame.type == FRAME_DATA) {
			connection->window_used += frame.len;
			note_message(connection, frame.len);
		}
		if (frame.type <= FRAME_HEADERS && frame.flags & FLAG_END_STREAM)
			answer_unary(connection, frame.stream);
		acknowledge(&connection->out, &frame);
		done += FRAME_HEAD_LEN + frame.len;
	}
	return_window(&connection->out, &connection->window_used);
	return send_pending(connection) == IO_DEAD ? -1 : (ssize_t)done;
}

// Understands what it can of the received bytes. IO_DEAD: the connection is finished.
static enum io serve(struct connection *connection)
{
	size_t preface = 0;
	if (connection->protocol == UNKNOWN) {
		if (connection->in.len < 4)
			return IO_DONE;
		bool http2 = !memcmp(connection->in.bytes, "PRI ", 4);
		if (http2 && connection->in.len < PREFACE_LEN)
			return IO_DONE;
		connection->protocol = http2 ? HTTP2 : HTTP1;
		if (http2) {
			greet_http2(connection);
			preface = PREFACE_LEN;
		}
	}
	ssize_t done = connection->protocol == HTTP2 ? serve_http2(connection, preface) : serve_http1(connection);
	if (done < 0)
		return IO_DEAD;
	buffer_drop_front(&connection->in, (size_t)done);
	return IO_DONE;
}

static enum io receive(struct connection *connection)
{
	for (;;) {
		buffer_reserve(&connection->in, 1024);
		size_t room = connection->in.capacity - connection->in.len;
		ssize_t n = recv(connection->fd, connection->in.bytes + connection->in.len, room, 0);
		if (n < 0)
			return errno == EAGAIN ? IO_DONE : IO_DEAD;
		if (n == 0)
			return IO_DEAD;
		connection->in.len += (size_t)n;
		if (serve(connection) == IO_DEAD)
			return IO_DEAD;
		if ((size_t)n < room)
			return IO_DONE;
	}
}

static void handle(struct connection *connection, uint32_t events)
{
	enum io result = events & (EPOLLERR | EPOLLHUP) ? IO_DEAD : IO_DONE;
	if (result != IO_DEAD && events & EPOLLOUT) {
		result = send_pending(connection);
		if (result == IO_DONE && connection->in.len)
			result = serve(connection);
	}
	if (result != IO_DEAD && events & EPOLLIN)
		result = receive(connection);
	if (result == IO_DEAD)
		finish(connection);
}

static void accept_all(int listener)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
		if (fd < 0)
			return;
		struct connection *connection = calloc(1, sizeof *connection);
		if (!connection)
			die("out of memory");
		connection->fd = fd;
		set_nodelay(fd);
		watch(poll_fd, EPOLL_CTL_ADD, fd, connection, false);
	}
}

int main(int count, char **arguments)
{
	static struct epoll_event events[512];
	if (count != 2) {
		fprintf(stderr, "usage: backend ADDRESS\n");
		return 2;
	}
	prepare_process();
	answer_of(BODY_DEFAULT);
	poll_fd = epoll_create1(0);
	int listener = listen_on(arguments[1]);
	watch(poll_fd, EPOLL_CTL_ADD, listener, NULL, false);
	for (;;) {
		int n = epoll_wait(poll_fd, events, 512, -1);
		for (int i = 0; i < n; i++) {
			if (!events[i].data.ptr)
				accept_all(listener);
			else
				handle(events[i].data.ptr, events[i].events);
		}
	}
}
