// load: a single-threaded load generator for loopback.
//
//   load MODE -t ADDRESS [-p PATH] [-H HOST] [-c CONNECTIONS] [-m STREAMS]
//        [-d SECONDS] [-w WARM-UP SECONDS] [-r REQUESTS PER SECOND]
//        [-s OCTETS OF A MESSAGE] [-A CA -C CERTIFICATE -K KEY -L ALPN PROTOCOL]
//
//   h1     HTTP/1.1, one request at a time on each connection
//   h2     gRPC-shaped unary calls over HTTP/2 with prior knowledge, -m at a time on each connection
//   new    HTTP/1.1, one request on each connection
//   tls    the same in mutual TLS 1.3, with a full handshake for each request
//   first  tries until the first request is answered, and prints when that was
//   idle   CONNECTIONS with one HTTP/1.1 request each, then held open for SECONDS
//
// Without -r the next request leaves when an answer came. With -r requests are due at even
// intervals whatever the answers do, and latency counts from the instant a request was due, so a
// server that stalls is charged for the requests it kept waiting.
//
// Prints START and END around the measured window, then one line of JSON.
#define _GNU_SOURCE
#include "histogram.h"
#include "load.h"
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <time.h>

enum { SECONDS_MAX = 120, CONNECTIONS_MAX = 20000, DIALS_AT_ONCE = 256, DUE_MAX = 1 << 20, IDLE_SETUP_SECONDS = 60 };
enum { SOURCES = 8, FIRST_TRY_EVERY_US = 500 };

struct options options = {
	.host = "bench.local", .path = "/b/1024", .connections = 1, .streams = 1, .message_len = 32,
	.seconds = 5, .warm_up_seconds = 1,
};

static int poll_fd, timer_fd = -1;
static struct connection *connections;
static struct histogram latencies;
static uint64_t ok_count, error_count, reconnect_count, byte_count;
static bool measuring;

// Instants at which requests were due and that no connection has taken yet: a ring.
static uint64_t due_ns[DUE_MAX], due_taken, due_added, next_due_ns;

uint64_t now_ns(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t seconds_ns(double seconds)
{
	return (uint64_t)(seconds * 1e9);
}

void record(uint64_t scheduled_ns, bool good)
{
	if (!measuring)
		return;
	if (!good) {
		error_count++;
		return;
	}
	ok_count++;
	histogram_add(&latencies, now_ns() - scheduled_ns);
}

void count_bytes(size_t n)
{
	if (measuring)
		byte_count += n;
}

static void want_write(struct connection *connection, bool wanted)
{
	if (connection->wants_write == wanted)
		return;
	connection->wants_write = wanted;
	watch(poll_fd, EPOLL_CTL_MOD, connection->fd, connection, wanted);
}

// Many short connections would use up the ports of one address: they come from several, in turn.
static void bind_to_next_source(int fd)
{
	static uint32_t turn;
	int on = 1;
	struct sockaddr_in source = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000102 + turn++ % SOURCES) };
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&source, sizeof source))
		die("bind");
}

static void dial(struct connection *connection)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fd < 0)
		die("socket");
	set_nodelay(fd);
	if (one_request_each())
		bind_to_next_source(fd);
	connection->fd = fd;
	connection->connected = connection->going_away = false;
	connection->in.len = connection->out.len = 0;
	connection->in_flight = 0;
	connection->wants_write = true;
	if (connect(fd, (struct sockaddr *)&options.target, sizeof options.target) && errno != EINPROGRESS)
		die("connect");
	watch(poll_fd, EPOLL_CTL_ADD, fd, connection, true);
}

// Gives a connection up with the requests on it; anything but an idle one is dialled again.
static void lose(struct connection *connection)
{
	if (connection->tls)
		tls_close(connection);
	close(connection->fd);
	connection->fd = -1;
	if (measuring)
		error_count += (uint64_t)connection->in_flight;
	connection->in_flight = 0;
	if (options.mode == MODE_IDLE)
		return;
	if (!one_request_each()) {
		reconnect_count++;
		usleep(1000);
	}
	dial(connection);
}

static bool can_take_more(const struct connection *connection)
{
	int limit = options.mode == MODE_HTTP2 ? options.streams : 1;
	return connection->fd >= 0 && connection->connected && !connection->going_away && connection->in_flight < limit;
}

static bool take_due(uint64_t *scheduled_ns)
{
	if (options.rate <= 0) {
		*scheduled_ns = now_ns();
		return true;
	}
	if (due_taken == due_added)
		return false;
	*scheduled_ns = due_ns[due_taken++ % DUE_MAX];
	return true;
}

static enum io flush(struct connection *connection)
{
	enum io result = buffer_send(&connection->out, connection->fd);
	if (result != IO_DEAD)
		want_write(connection, result == IO_BLOCKED);
	return result;
}

static enum io start_requests(struct connection *connection)
{
	uint64_t scheduled_ns;
	while (can_take_more(connection) && take_due(&scheduled_ns)) {
		if (options.mode == MODE_HTTP2)
			http2_send(connection, scheduled_ns);
		else if (http1_send(connection, scheduled_ns) == IO_DEAD)
			return IO_DEAD;
	}
	return flush(connection);
}

// One step of a connection that is made for one request inside TLS; dead once it has had its answer.
static enum io on_tls(struct connection *connection)
{
	enum io result = tls_step(connection);
	if (result == IO_BLOCKED)
		want_write(connection, false);
	return result == IO_DONE ? IO_DEAD : result;
}

static enum io on_connected(struct connection *connection)
{
	int error = 0;
	socklen_t len = sizeof error;
	getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error) {
		static bool told;
		if (!told)
			fprintf(stderr, "load: connect: %s\n", strerror(error));
		told = true;
		connection->in_flight = options.mode == MODE_IDLE || one_request_each();   // counts as a failed request there
		return IO_DEAD;
	}
	connection->connected = true;
	if (options.mode == MODE_TLS) {
		tls_open(connection, now_ns());
		return on_tls(connection);
	}
	if (options.mode == MODE_HTTP2)
		http2_open(connection);
	return start_requests(connection);
}

static enum io on_event(struct connection *connection, uint32_t events)
{
	if (!connection->connected)
		return on_connected(connection);
	if (options.mode == MODE_TLS)
		return on_tls(connection);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		enum io result = options.mode == MODE_HTTP2 ? http2_receive(connection) : http1_receive(connection);
		if (options.mode == MODE_NEW && result == IO_DONE)
			connection->going_away = true;
		if (result == IO_DEAD || (connection->going_away && !connection->in_flight))
			return IO_DEAD;
	}
	return options.mode == MODE_IDLE ? IO_DONE : start_requests(connection);
}

static void arm_timer(void)
{
	struct itimerspec at = { .it_value = {
		.tv_sec = (time_t)(next_due_ns / 1000000000u), .tv_nsec = (long)(next_due_ns % 1000000000u) } };
	if (timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL))
		die("timerfd_settime");
}

static void start_schedule(uint64_t now)
{
	timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	watch(poll_fd, EPOLL_CTL_ADD, timer_fd, NULL, false);
	next_due_ns = now + 2000000;
	arm_timer();
}

// Adds the requests that have become due, offers them to the connections in turn, and sets the
// timer to the next one.
static void dispatch_due(uint64_t now)
{
	static int turn;
	uint64_t before = next_due_ns;
	while (next_due_ns <= now) {
		if (due_added - due_taken < DUE_MAX)
			due_ns[due_added++ % DUE_MAX] = next_due_ns;
		next_due_ns += seconds_ns(1 / options.rate);
	}
	turn++;
	for (int i = 0; i < options.connections && due_taken < due_added; i++) {
		struct connection *connection = &connections[(turn + i) % options.connections];
		if (can_take_more(connection) && start_requests(connection) == IO_DEAD)
			lose(connection);
	}
	if (next_due_ns != before)
		arm_timer();
}

static void handle_events(uint64_t until)
{
	static struct epoll_event events[256];
	uint64_t now = now_ns(), expirations;
	int timeout_ms = until > now ? (int)((until - now) / 1000000) + 1 : 0;
	int n = epoll_wait(poll_fd, events, 256, timeout_ms < 100 ? timeout_ms : 100);
	for (int i = 0; i < n; i++) {
		struct connection *connection = events[i].data.ptr;
		if (!connection) {
			if (read(timer_fd, &expirations, sizeof expirations) < 0 && errno != EAGAIN)
				die("timerfd");
		} else if (connection->fd >= 0 && on_event(connection, events[i].events) == IO_DEAD) {
			lose(connection);
		}
	}
}

static void announce(const char *word)
{
	puts(word);
	fflush(stdout);
}

// Runs until `end`; open-loop requests are dispatched as they become due.
static void drive(uint64_t end)
{
	for (uint64_t now = now_ns(); now < end; now = now_ns()) {
		if (options.rate > 0)
			dispatch_due(now);
		handle_events(end);
	}
}

static double run_requests(void)
{
	uint64_t begin = now_ns();
	for (int i = 0; i < options.connections; i++)
		dial(&connections[i]);
	if (options.rate > 0)
		start_schedule(begin);
	drive(begin + seconds_ns(options.warm_up_seconds));
	measuring = true;
	begin = now_ns();
	announce("START");
	drive(begin + seconds_ns(options.seconds));
	return (double)(now_ns() - begin) / 1e9;
}

// Opens the connections a few at a time, one request on each, then holds them.
static double run_idle(void)
{
	uint64_t limit = now_ns() + seconds_ns(IDLE_SETUP_SECONDS);
	uint64_t wanted = (uint64_t)options.connections, dialled = 0;
	measuring = true;
	while (ok_count + error_count < wanted && now_ns() < limit) {
		while (dialled < wanted && dialled - ok_count - error_count < DIALS_AT_ONCE)
			dial(&connections[dialled++]);
		handle_events(limit);
	}
	uint64_t begin = now_ns();
	announce("START");
	while (now_ns() < begin + seconds_ns(options.seconds))
		handle_events(begin + seconds_ns(options.seconds));
	return (double)(now_ns() - begin) / 1e9;
}

static bool answers_once(void)
{
	char answer[64];
	size_t len;
	const char *request = http1_request(&len);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0)
		die("socket");
	bool good = !connect(fd, (struct sockaddr *)&options.target, sizeof options.target) &&
		send(fd, request, len, MSG_NOSIGNAL) == (ssize_t)len &&
		recv(fd, answer, sizeof answer, 0) >= 12 && !memcmp(answer + 9, "200", 3);
	close(fd);
	return good;
}

// Tries until there is an answer, and prints the instant at which it came.
static int wait_for_first(void)
{
	uint64_t limit = now_ns() + seconds_ns(options.seconds);
	while (now_ns() < limit) {
		if (answers_once()) {
			printf("{\"first_ns\":%lu}\n", now_ns());
			return 0;
		}
		usleep(FIRST_TRY_EVERY_US);
	}
	fprintf(stderr, "load: no answer in time\n");
	return 1;
}

static int count_open(void)
{
	int open = 0;
	for (int i = 0; i < options.connections; i++)
		open += connections[i].fd >= 0;
	return open;
}

static void report(double seconds)
{
	printf("{\"seconds\":%.3f,\"ok\":%lu,\"errors\":%lu,\"requests_per_second\":%.1f,\"unserved\":%lu,"
	       "\"reconnects\":%lu,\"bytes\":%lu,\"open\":%d,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
	       seconds, ok_count, error_count, (double)ok_count / seconds, due_added - due_taken,
	       reconnect_count, byte_count, count_open(), histogram_quantile_us(&latencies, 0.5),
	       histogram_quantile_us(&latencies, 0.9), histogram_quantile_us(&latencies, 0.99),
	       (double)latencies.max_ns / 1000);
}

static enum mode mode_of(const char *name)
{
	static const char *const names[] = { "h1", "h2", "new", "tls", "idle", "first" };
	for (int mode = 0; mode < 6; mode++)
		if (!strcmp(name, names[mode]))
			return (enum mode)mode;
	fprintf(stderr, "load: mode %s is unknown: say h1, h2, new, tls, idle or first\n", name);
	exit(2);
}

static void read_options(int count, char **arguments)
{
	int letter;
	if (count < 2) {
		fprintf(stderr, "usage: load h1|h2|new|tls|idle|first -t ADDRESS ... (see load.c)\n");
		exit(2);
	}
	options.mode = mode_of(arguments[1]);
	optind = 2;
	while ((letter = getopt(count, arguments, "t:p:H:c:m:s:d:w:r:A:C:K:L:")) != -1) {
		switch (letter) {
		case 't': options.target = loopback_address(optarg); break;
		case 'p': options.path = optarg; break;
		case 'H': options.host = optarg; break;
		case 'c': options.connections = atoi(optarg); break;
		case 'm': options.streams = atoi(optarg); break;
		case 's': options.message_len = atoi(optarg); break;
		case 'd': options.seconds = atof(optarg); break;
		case 'w': options.warm_up_seconds = atof(optarg); break;
		case 'r': options.rate = atof(optarg); break;
		case 'A': options.ca = optarg; break;
		case 'C': options.certificate = optarg; break;
		case 'K': options.key = optarg; break;
		case 'L': options.alpn = optarg; break;
		default: exit(2);
		}
	}
	if (!options.target.sin_port || options.seconds > SECONDS_MAX || options.connections < 1 ||
	    options.connections > CONNECTIONS_MAX || options.streams < 1 || options.streams >= STREAM_SLOTS ||
	    options.message_len < MESSAGE_MIN || options.message_len > MESSAGE_MAX) {
		fprintf(stderr, "load: -t is needed; at most %d s, %d connections, %d streams, messages of %d to %d octets\n",
			SECONDS_MAX, CONNECTIONS_MAX, STREAM_SLOTS - 1, MESSAGE_MIN, MESSAGE_MAX);
		exit(2);
	}
}

int main(int count, char **arguments)
{
	read_options(count, arguments);
	prepare_process();
	prctl(PR_SET_TIMERSLACK, 1);
	http1_prepare();
	http2_prepare();
	if (options.mode == MODE_TLS)
		tls_prepare();
	if (options.mode == MODE_FIRST)
		return wait_for_first();
	poll_fd = epoll_create1(0);
	connections = calloc((size_t)options.connections, sizeof *connections);
	if (!connections)
		die("out of memory");
	for (int i = 0; i < options.connections; i++)
		connections[i].fd = -1;
	double seconds = options.mode == MODE_IDLE ? run_idle() : run_requests();
	measuring = false;
	announce("END");
	report(seconds);
	return 0;
}
