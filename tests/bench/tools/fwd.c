// fwd: a bare single-threaded TCP forwarder. It looks at nothing, so what it costs is what any
// user-space proxy pays for the sockets alone: the floor the others are compared with.
//
//   fwd LISTEN TARGET        both loopback, like 127.0.0.1:18003 127.0.0.1:19000
#define _GNU_SOURCE
#include "common.h"

enum { CHUNK = 1 << 16, ROUNDS_PER_EVENT = 16 };

// One side of a forwarded connection. `unsent` was read here and waits for the other side.
struct side {
	int fd;
	struct side *other, *next_dead;
	struct buffer unsent;
	bool wants_write, dead, read_closed, forwarded_close;
};

static int poll_fd;
static struct sockaddr_in target;
static struct side *dead_sides;

static void want_write(struct side *side, bool wanted)
{
	if (side->wants_write == wanted || side->dead)
		return;
	side->wants_write = wanted;
	watch(poll_fd, EPOLL_CTL_MOD, side->fd, side, wanted);
}

static void bury(struct side *side)
{
	if (side->dead)
		return;
	side->dead = true;
	close(side->fd);
	free(side->unsent.bytes);
	side->next_dead = dead_sides;
	dead_sides = side;
}

// Freed only after a whole batch of events: later ones of the batch may still point here.
static void free_dead(void)
{
	while (dead_sides) {
		struct side *side = dead_sides;
		dead_sides = side->next_dead;
		free(side);
	}
}

// Sends on what was read from `from`, then its end of stream. IO_DEAD: both sides are finished.
static enum io push(struct side *from)
{
	struct side *to = from->other;
	enum io sent = buffer_send(&from->unsent, to->fd);
	if (sent == IO_DEAD && errno != ENOTCONN)
		return IO_DEAD;
	if (from->unsent.len) {
		want_write(to, true);
		return IO_BLOCKED;
	}
	if (from->read_closed && !from->forwarded_close) {
		shutdown(to->fd, SHUT_WR);
		from->forwarded_close = true;
		if (to->forwarded_close)
			return IO_DEAD;
	}
	return IO_DONE;
}

// Reads from `from` and sends straight on; only what the other socket refuses is kept.
static enum io pull(struct side *from)
{
	static uint8_t chunk[CHUNK];
	for (int round = 0; round < ROUNDS_PER_EVENT; round++) {
		if (from->unsent.len)
			return IO_BLOCKED;
		ssize_t got = recv(from->fd, chunk, sizeof chunk, 0);
		if (got < 0)
			return errno == EAGAIN ? IO_BLOCKED : IO_DEAD;
		if (got == 0) {
			from->read_closed = true;
			return push(from);
		}
		ssize_t sent = send(from->other->fd, chunk, (size_t)got, MSG_NOSIGNAL);
		if (sent < 0) {
			if (errno != EAGAIN && errno != ENOTCONN)
				return IO_DEAD;
			sent = 0;
		}
		if (sent < got) {
			buffer_append(&from->unsent, chunk + sent, (size_t)(got - sent));
			want_write(from->other, true);
			return IO_BLOCKED;
		}
		if (got < CHUNK)
			return IO_BLOCKED;
	}
	return IO_BLOCKED;
}

static struct side *add_side(int fd)
{
	struct side *side = calloc(1, sizeof *side);
	if (!side)
		die("out of memory");
	side->fd = fd;
	set_nodelay(fd);
	watch(poll_fd, EPOLL_CTL_ADD, fd, side, false);
	return side;
}

static void accept_all(int listener)
{
	for (;;) {
		int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
		if (client < 0)
			return;
		int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (server < 0 || (connect(server, (struct sockaddr *)&target, sizeof target) &&
				   errno != EINPROGRESS)) {
			close(client);
			if (server >= 0)
				close(server);
			continue;
		}
		struct side *left = add_side(client), *right = add_side(server);
		left->other = right;
		right->other = left;
	}
}

static void handle(struct side *side, uint32_t events)
{
	enum io result = IO_DONE;
	if (events & EPOLLOUT) {
		want_write(side, false);
		result = push(side->other);
		if (result == IO_DONE && !side->other->read_closed)
			result = pull(side->other);
	}
	if (result != IO_DEAD && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		if (!side->read_closed)
			result = pull(side);
		else if (events & (EPOLLHUP | EPOLLERR))
			result = IO_DEAD;
	}
	if (result == IO_DEAD) {
		bury(side->other);
		bury(side);
	}
}

int main(int count, char **arguments)
{
	static struct epoll_event events[512];
	if (count != 3) {
		fprintf(stderr, "usage: fwd LISTEN TARGET\n");
		return 2;
	}
	prepare_process();
	target = loopback_address(arguments[2]);
	poll_fd = epoll_create1(0);
	int listener = listen_on(arguments[1]);
	watch(poll_fd, EPOLL_CTL_ADD, listener, NULL, false);
	for (;;) {
		int n = epoll_wait(poll_fd, events, 512, -1);
		for (int i = 0; i < n; i++) {
			struct side *side = events[i].data.ptr;
			if (!side)
				accept_all(listener);
			else if (!side->dead)
				handle(side, events[i].events);
		}
		free_dead();
	}
}
