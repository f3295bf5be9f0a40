// Mutual TLS 1.3 of the load generator: a full handshake for each request.
#define _GNU_SOURCE
#include "load.h"
#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *context;

static void tell(const char *what)
{
	static int told;
	if (told++ < 3) {
		fprintf(stderr, "load: %s:\n", what);
		ERR_print_errors_fp(stderr);
	}
}

static void must(int result, const char *what)
{
	if (result == 1)
		return;
	tell(what);
	exit(2);
}

void tls_prepare(void)
{
	unsigned char alpn[64];
	if (!options.ca || !options.certificate || !options.key || !options.alpn || strlen(options.alpn) > sizeof alpn - 1) {
		fprintf(stderr, "load: mode tls needs -A CA, -C CERTIFICATE, -K KEY and -L PROTOCOL\n");
		exit(2);
	}
	context = SSL_CTX_new(TLS_client_method());
	if (!context)
		die("SSL_CTX_new");
	must(SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION), "TLS 1.3");
	must(SSL_CTX_set1_groups_list(context, "X25519"), "X25519");
	must(SSL_CTX_use_certificate_chain_file(context, options.certificate), options.certificate);
	must(SSL_CTX_use_PrivateKey_file(context, options.key, SSL_FILETYPE_PEM), options.key);
	must(SSL_CTX_load_verify_locations(context, options.ca, NULL), options.ca);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	alpn[0] = (unsigned char)strlen(options.alpn);
	memcpy(alpn + 1, options.alpn, alpn[0]);
	must(SSL_CTX_set_alpn_protos(context, alpn, alpn[0] + 1u) == 0, "ALPN");
}

void tls_open(struct connection *connection, uint64_t scheduled_ns)
{
	http1_begin(connection, scheduled_ns);
	connection->tls_is_up = false;
	connection->tls = SSL_new(context);
	if (!connection->tls || !SSL_set_fd(connection->tls, connection->fd))
		die("SSL_new");
	SSL_set_tlsext_host_name(connection->tls, options.host);
	SSL_set_connect_state(connection->tls);
}

void tls_close(struct connection *connection)
{
	SSL_free(connection->tls);
	connection->tls = NULL;
}

// What a call that did not succeed means.
static enum io failure(struct connection *connection, int result, const char *what)
{
	int error = SSL_get_error(connection->tls, result);
	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
		return IO_BLOCKED;
	tell(what);
	return IO_DEAD;
}

static enum io shake_hands(struct connection *connection)
{
	size_t len;
	const char *request = http1_request(&len);
	int result = SSL_do_handshake(connection->tls);
	if (result != 1)
		return failure(connection, result, "the handshake failed");
	connection->tls_is_up = true;
	// A request is small and the socket's buffer empty: it is taken whole or not at all.
	result = SSL_write(connection->tls, request, (int)len);
	return result == (int)len ? IO_DONE : IO_DEAD;
}

enum io tls_step(struct connection *connection)
{
	ERR_clear_error();
	enum io result = connection->tls_is_up ? IO_DONE : shake_hands(connection);
	if (result != IO_DONE)
		return result;
	do {
		buffer_reserve(&connection->in, RECEIVE_ROOM);
		int n = SSL_read(connection->tls, connection->in.bytes + connection->in.len, RECEIVE_ROOM);
		if (n <= 0)
			return failure(connection, n, "no answer");
		result = http1_got(connection, (size_t)n);
	} while (result == IO_BLOCKED);
	if (result == IO_DONE) {
		connection->in_flight = 0;
		record(connection->scheduled_ns, connection->status_ok);
		SSL_shutdown(connection->tls);
	}
	return result;
}
