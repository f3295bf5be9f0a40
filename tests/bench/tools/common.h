// What the benchmark's C tools share: loopback addresses, byte buffers, epoll and HTTP/2 frames.
#ifndef LENO_BENCH_COMMON_H
#define LENO_BENCH_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static inline void die(const char *what)
{
	perror(what);
	exit(1);
}

// Reads "127.0.0.1:80". Anything but loopback ends the program: these tools load nothing else.
static inline struct sockaddr_in loopback_address(const char *text)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	char host[64] = "";
	unsigned port = 0;
	if (sscanf(text, "%63[^:]:%u", host, &port) != 2 || port > 65535 ||
	    inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
	    ntohl(address.sin_addr.s_addr) >> 24 != 127) {
		fprintf(stderr, "%s: give a loopback address, like 127.0.0.1:19000\n", text);
		exit(2);
	}
	address.sin_port = htons((uint16_t)port);
	return address;
}

// As many open files as the hard limit gives, and a write to a closed socket is an error, not a signal.
static inline void prepare_process(void)
{
	struct rlimit files;
	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files))
		die("getrlimit");
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files))
		die("setrlimit");
}

static inline void set_nodelay(int fd)
{
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline int listen_on(const char *text)
{
	struct sockaddr_in address = loopback_address(text);
	int on = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096))
		die(text);
	return fd;
}

// Registers (EPOLL_CTL_ADD) or changes (EPOLL_CTL_MOD) what is waited for on `fd`.
static inline void watch(int poll, int operation, int fd, void *owner, bool also_writable)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = owner };
	if (also_writable)
		event.events |= EPOLLOUT;
	if (epoll_ctl(poll, operation, fd, &event))
		die("epoll_ctl");
}

// A growing run of bytes. All zeroes is an empty one.
struct buffer {
	uint8_t *bytes;
	size_t len, capacity;
};

static inline void buffer_reserve(struct buffer *buffer, size_t room)
{
	if (buffer->capacity - buffer->len >= room)
		return;
	buffer->capacity = 2 * buffer->capacity + room;
	buffer->bytes = realloc(buffer->bytes, buffer->capacity);
	if (!buffer->bytes)
		die("out of memory");
}

static inline void buffer_append(struct buffer *buffer, const void *bytes, size_t len)
{
	buffer_reserve(buffer, len);
	memcpy(buffer->bytes + buffer->len, bytes, len);
	buffer->len += len;
}

static inline void buffer_drop_front(struct buffer *buffer, size_t len)
{
	if (!len)
		return;
	buffer->len -= len;
	memmove(buffer->bytes, buffer->bytes + len, buffer->len);
}

enum io { IO_DEAD = -1, IO_BLOCKED = 0, IO_DONE = 1 };

// Sends what is in the buffer; what the socket does not take now stays in it.
static inline enum io buffer_send(struct buffer *buffer, int fd)
{
	size_t sent = 0;
	while (sent < buffer->len) {
		ssize_t n = send(fd, buffer->bytes + sent, buffer->len - sent, MSG_NOSIGNAL);
		if (n < 0) {
			if (errno != EAGAIN)
				return IO_DEAD;
			break;
		}
		sent += (size_t)n;
	}
	buffer_drop_front(buffer, sent);
	return buffer->len ? IO_BLOCKED : IO_DONE;
}

// HTTP/2 (RFC 9113), as much of it as two ends that trust each other need.
enum { FRAME_HEAD_LEN = 9, PREFACE_LEN = 24 };
enum frame_type {
	FRAME_DATA = 0, FRAME_HEADERS = 1, FRAME_RST_STREAM = 3, FRAME_SETTINGS = 4,
	FRAME_PING = 6, FRAME_GOAWAY = 7, FRAME_WINDOW_UPDATE = 8,
};
enum { FLAG_END_STREAM = 1, FLAG_ACK = 1, FLAG_END_HEADERS = 4 };

struct frame {
	uint32_t len, stream;
	uint8_t type, flags;
	const uint8_t *payload;
};

// Takes the first whole frame of `bytes`; false when there is none yet.
static inline bool read_frame(const uint8_t *bytes, size_t len, struct frame *frame)
{
	if (len < FRAME_HEAD_LEN)
		return false;
	frame->len = (uint32_t)(bytes[0] << 16 | bytes[1] << 8 | bytes[2]);
	frame->type = bytes[3];
	frame->flags = bytes[4];
	frame->stream = (uint32_t)((bytes[5] & 0x7f) << 24 | bytes[6] << 16 | bytes[7] << 8 | bytes[8]);
	frame->payload = bytes + FRAME_HEAD_LEN;
	return len - FRAME_HEAD_LEN >= frame->len;
}

static inline void set_frame_stream(uint8_t *frame, uint32_t stream)
{
	uint32_t network = htonl(stream);
	memcpy(frame + 5, &network, sizeof network);
}

static inline void append_frame(struct buffer *out, enum frame_type type, uint8_t flags,
				uint32_t stream, const void *payload, uint32_t len)
{
	uint8_t head[FRAME_HEAD_LEN] = {
		(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, (uint8_t)type, flags,
	};
	set_frame_stream(head, stream);
	buffer_append(out, head, sizeof head);
	buffer_append(out, payload, len);
}

static inline void append_window_update(struct buffer *out, uint32_t octets)
{
	uint32_t network = htonl(octets);
	append_frame(out, FRAME_WINDOW_UPDATE, 0, 0, &network, sizeof network);
}

static inline void append_setting(struct buffer *payload, uint16_t id, uint32_t value)
{
	uint8_t bytes[6] = {
		(uint8_t)(id >> 8), (uint8_t)id, (uint8_t)(value >> 24),
		(uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value,
	};
	buffer_append(payload, bytes, sizeof bytes);
}

// Acknowledges SETTINGS and PING; other frames need no answer of this kind.
static inline void acknowledge(struct buffer *out, const struct frame *frame)
{
	if (frame->flags & FLAG_ACK)
		return;
	if (frame->type == FRAME_SETTINGS)
		append_frame(out, FRAME_SETTINGS, FLAG_ACK, 0, "", 0);
	else if (frame->type == FRAME_PING)
		append_frame(out, FRAME_PING, FLAG_ACK, 0, frame->payload, frame->len);
}

// Gives the connection's flow-control window back in large steps.
static inline void return_window(struct buffer *out, uint32_t *received)
{
	if (*received < 1 << 20)
		return;
	append_window_update(out, *received);
	*received = 0;
}

enum { WIDE_WINDOW = 0x3fff0000, MESSAGE_PREFIX_LEN = 5, MESSAGE_MIN = 4, MESSAGE_MAX = 8 * 1024 };

// A length-prefixed gRPC message of `len` octets: a protobuf with a string in field 1. Gives how long it is with its prefix.
static inline uint32_t unary_message(uint8_t message[MESSAGE_PREFIX_LEN + MESSAGE_MAX], uint32_t len)
{
	uint32_t field = len - 2 < 128 ? 2 : 3;   // its tag and its length, a varint
	uint32_t text = len - field;
	memset(message, 'x', MESSAGE_PREFIX_LEN + len);
	memcpy(message, (const uint8_t[]){ 0, 0, 0, (uint8_t)(len >> 8), (uint8_t)len, 0x0a }, 6);
	message[6] = field == 2 ? (uint8_t)text : (uint8_t)(text | 0x80);
	if (field == 3)
		message[7] = (uint8_t)(text >> 7);
	return MESSAGE_PREFIX_LEN + len;
}

#endif
