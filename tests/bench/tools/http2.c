// HTTP/2 of the load generator, prior knowledge: gRPC-shaped unary calls, many on each connection.
#define _GNU_SOURCE
#include "load.h"

// HEADERS and DATA of a request. The first one on a connection spells its fields out and so fills
// the server's HPACK table; the later ones only name the entries, as real clients do.
struct request {
	struct buffer bytes;
	size_t data_at;
};

static struct request first_request, later_request;

static void append_byte(struct buffer *block, uint8_t byte)
{
	buffer_append(block, &byte, 1);
}

static void append_text(struct buffer *block, const char *text)
{
	size_t len = strlen(text);
	if (len > 126) {
		fprintf(stderr, "load: %s: longer than 126 bytes\n", text);
		exit(2);
	}
	append_byte(block, (uint8_t)len);
	buffer_append(block, text, len);
}

// A field with a name of the static table, to be remembered by the server (RFC 7541, 6.2.1).
static void append_field(struct buffer *block, uint8_t static_index, const char *value)
{
	append_byte(block, 0x40 | static_index);
	append_text(block, value);
}

static void append_method_and_scheme(struct buffer *block)
{
	append_byte(block, 0x83);   // :method: POST
	append_byte(block, 0x86);   // :scheme: http
}

static void make_request(struct request *request, const struct buffer *block)
{
	uint8_t message[MESSAGE_PREFIX_LEN + MESSAGE_MAX];
	uint32_t message_len = unary_message(message, (uint32_t)options.message_len);
	append_frame(&request->bytes, FRAME_HEADERS, FLAG_END_HEADERS, 0, block->bytes, (uint32_t)block->len);
	request->data_at = request->bytes.len;
	append_frame(&request->bytes, FRAME_DATA, FLAG_END_STREAM, 0, message, message_len);
}

void http2_prepare(void)
{
	struct buffer first = { 0 }, later = { 0 };
	append_method_and_scheme(&first);
	append_field(&first, 4, options.path);
	append_field(&first, 1, options.host);
	append_field(&first, 31, "application/grpc");
	append_field(&first, 58, "grpc-leno-bench/1");
	append_byte(&first, 0x40);
	append_text(&first, "te");
	append_text(&first, "trailers");
	append_method_and_scheme(&later);
	for (uint8_t index = 66; index >= 62; index--)   // the five remembered fields, oldest first
		append_byte(&later, 0x80 | index);
	make_request(&first_request, &first);
	make_request(&later_request, &later);
	free(first.bytes);
	free(later.bytes);
}

void http2_open(struct connection *connection)
{
	struct buffer settings = { 0 };
	if (!connection->stream_scheduled_ns) {
		connection->stream_scheduled_ns = calloc(STREAM_SLOTS, sizeof *connection->stream_scheduled_ns);
		connection->stream_has_data = calloc(STREAM_SLOTS, sizeof *connection->stream_has_data);
		if (!connection->stream_scheduled_ns || !connection->stream_has_data)
			die("out of memory");
	}
	connection->next_stream = 1;
	connection->window_used = 0;
	append_setting(&settings, 2, 0);         // ENABLE_PUSH
	append_setting(&settings, 4, 1 << 20);   // INITIAL_WINDOW_SIZE
	buffer_append(&connection->out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PREFACE_LEN);
	append_frame(&connection->out, FRAME_SETTINGS, 0, 0, settings.bytes, (uint32_t)settings.len);
	append_window_update(&connection->out, WIDE_WINDOW);
	free(settings.bytes);
}

static uint32_t slot_of(uint32_t stream)
{
	return stream >> 1 & (STREAM_SLOTS - 1);
}

// Queues one request; the caller flushes, so that requests started together leave together.
void http2_send(struct connection *connection, uint64_t scheduled_ns)
{
	uint32_t stream = connection->next_stream;
	struct request *request = stream == 1 ? &first_request : &later_request;
	set_frame_stream(request->bytes.bytes, stream);
	set_frame_stream(request->bytes.bytes + request->data_at, stream);
	buffer_append(&connection->out, request->bytes.bytes, request->bytes.len);
	connection->stream_scheduled_ns[slot_of(stream)] = scheduled_ns;
	connection->stream_has_data[slot_of(stream)] = false;
	connection->next_stream += 2;
	connection->in_flight++;
}

static void handle_frame(struct connection *connection, const struct frame *frame)
{
	uint32_t slot = slot_of(frame->stream);
	bool ended = frame->type <= FRAME_HEADERS && frame->flags & FLAG_END_STREAM;
	if (frame->type == FRAME_DATA) {
		connection->window_used += frame->len;
		connection->stream_has_data[slot] |= frame->len > 0;
	}
	if (ended || frame->type == FRAME_RST_STREAM) {
		connection->in_flight--;
		record(connection->stream_scheduled_ns[slot], ended && connection->stream_has_data[slot]);
	}
	if (frame->type == FRAME_GOAWAY)
		connection->going_away = true;
	acknowledge(&connection->out, frame);
}

static void handle_frames(struct connection *connection)
{
	struct frame frame;
	size_t done = 0;
	while (read_frame(connection->in.bytes + done, connection->in.len - done, &frame)) {
		handle_frame(connection, &frame);
		done += FRAME_HEAD_LEN + frame.len;
	}
	buffer_drop_front(&connection->in, done);
	return_window(&connection->out, &connection->window_used);
}

enum io http2_receive(struct connection *connection)
{
	for (;;) {
		buffer_reserve(&connection->in, 1 << 15);
		size_t room = connection->in.capacity - connection->in.len;
		ssize_t n = recv(connection->fd, connection->in.bytes + connection->in.len, room, 0);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return IO_DEAD;
		if (n < 0)
			return IO_DONE;
		connection->in.len += (size_t)n;
		handle_frames(connection);
		if ((size_t)n < room)
			return IO_DONE;
	}
}
